//! Who an object belongs to.

use serde::Deserialize;
use smol_str::SmolStr;

/// An owner.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// `apiVersion`.
    pub api_version: SmolStr,
    /// `kind`.
    pub kind: SmolStr,
    /// `name`.
    pub name: SmolStr,
    /// `uid`.
    pub uid: SmolStr,
    /// Whether it is the controller.
    pub controller: bool,
}
