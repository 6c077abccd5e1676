//! Keeps the webhook's certificate: in a Secret that all replicas share, in the API server's configuration, and served.
//!
//! ```text
//!   Secret missing, unreadable, for other names or near its end ──> make a pair, create or replace (compare-and-swap)
//!   Secret readable ──> its CA is put into both webhook configurations ──> settle ──> its pair is served
//! ```
//! Driven by watches of the objects and by the rotation time; what fails is tried again after a pause.
//!
//! What must hold: a pair is served only after the API server was told its CA; two replicas that make one at the same
//! moment end with the same one, because the second write is refused and the Secret is read again.

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

use super::certs::{self, CertError, Pair};
use super::serve::ServingCert;
use flowforge_api::names::{MANAGED_BY_CONTROLLER, label};

const NOT_AFTER: &str = "flowforge.dev/not-after";
const DNS_NAMES: &str = "flowforge.dev/dns-names";
const CA: &str = "ca.crt";
const CERT: &str = "tls.crt";
const KEY: &str = "tls.key";
// The API server reads its webhook configuration through a watch: give it a moment before another CA signs.
const SETTLE: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// What to keep, and for whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespace of the Secret.
    pub namespace: String,
    /// Name of the Secret.
    pub secret: String,
    /// Name of the ValidatingWebhookConfiguration and of the MutatingWebhookConfiguration.
    pub configuration: String,
    /// Names (or addresses) under which the API server reaches the webhook.
    pub dns_names: Vec<String>,
}

/// What goes wrong while keeping it.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error(transparent)]
    Cert(#[from] CertError),
}

/// Keeps one certificate.
pub struct Keeper {
    secrets: Api<Secret>,
    validating: Api<ValidatingWebhookConfiguration>,
    mutating: Api<MutatingWebhookConfiguration>,
    settings: Settings,
    serving: Arc<ServingCert>,
    served: Option<Pair>,
}

impl Keeper {
    /// A keeper that hands what it keeps to `serving`.
    #[must_use]
    pub fn new(client: kube::Client, settings: Settings, serving: Arc<ServingCert>) -> Self {
        let secrets = Api::namespaced(client.clone(), &settings.namespace);
        let mutating = Api::all(client.clone());
        Self { secrets, validating: Api::all(client), mutating, settings, serving, served: None }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut changes = pin!(self.changes());
        loop {
            let wait = match self.keep().await {
                Ok(rotate_at) => until(rotate_at).clamp(RETRY, LONGEST_WAIT),
                Err(error) => {
                    tracing::warn!(%error, "webhook certificate");
                    RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
                _ = changes.next() => {}
            }
        }
    }

    fn changes(&self) -> impl Stream<Item = ()> + Send + 'static {
        let by_name = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
        let secrets = watcher(self.secrets.clone(), by_name(&self.settings.secret)).default_backoff();
        let configuration = by_name(&self.settings.configuration);
        let validating = watcher(self.validating.clone(), configuration.clone()).default_backoff();
        let mutating = watcher(self.mutating.clone(), configuration).default_backoff();
        let secrets = secrets.filter_map(|event| std::future::ready(is_change(event.as_ref().ok())));
        let validating = validating.filter_map(|event| std::future::ready(is_change(event.as_ref().ok())));
        let mutating = mutating.filter_map(|event| std::future::ready(is_change(event.as_ref().ok())));
        futures::stream::select_all([secrets.boxed(), validating.boxed(), mutating.boxed()])
    }

    /// One pass; answers when the pair is to be rotated.
    async fn keep(&mut self) -> Result<Timestamp, KeepError> {
        // 1. A usable pair in the Secret.
        let pair = self.pair().await?;
        // 2. The API server knows its CA.
        let told = self.publish(&pair.ca_bundle).await?;
        // 3. Serve it.
        if self.served.as_ref() != Some(&pair) {
            let key = pair.certified_key()?;
            if told && self.served.is_some() {
                tokio::time::sleep(SETTLE).await;
            }
            self.serving.set(key);
            tracing::info!(not_after = %pair.not_after, "webhook certificate in use");
            self.served = Some(pair.clone());
        }
        Ok(pair.rotate_at())
    }

    async fn pair(&self) -> Result<Pair, KeepError> {
        let now = Timestamp::now();
        let Some(secret) = self.secrets.get_opt(&self.settings.secret).await? else {
            let pair = certs::make(&self.settings.dns_names, now)?;
            self.secrets.create(&PostParams::default(), &self.secret(&pair, ObjectMeta::default())).await?;
            return Ok(pair);
        };
        let stored = read(&secret);
        if let Some(pair) = &stored
            && pair.rotate_at() > now
            && names_of(&secret) == self.settings.dns_names
        {
            return Ok(pair.clone());
        }
        let pair = certs::make(&self.settings.dns_names, now)?;
        let pair = pair.after(stored.as_ref().map_or("", |p| &p.ca_bundle));
        let meta = secret.metadata;
        self.secrets.replace(&self.settings.secret, &PostParams::default(), &self.secret(&pair, meta)).await?;
        tracing::info!(not_after = %pair.not_after, "webhook certificate replaced");
        Ok(pair)
    }

    fn secret(&self, pair: &Pair, mut metadata: ObjectMeta) -> Secret {
        metadata.name = Some(self.settings.secret.clone());
        let labels = metadata.labels.get_or_insert_default();
        labels.insert(label::MANAGED_BY.to_owned(), MANAGED_BY_CONTROLLER.to_owned());
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert(NOT_AFTER.to_owned(), pair.not_after.to_string());
        annotations.insert(DNS_NAMES.to_owned(), self.settings.dns_names.join(","));
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        let data = BTreeMap::from([
            (CA.to_owned(), bytes(&pair.ca_bundle)),
            (CERT.to_owned(), bytes(&pair.cert)),
            (KEY.to_owned(), bytes(&pair.key)),
        ]);
        Secret { metadata, data: Some(data), type_: Some("kubernetes.io/tls".to_owned()), ..Secret::default() }
    }

    /// Puts the CA into every webhook of both configurations; whether something was written.
    async fn publish(&self, bundle: &str) -> Result<bool, KeepError> {
        let name = &self.settings.configuration;
        let wanted = ByteString(bundle.as_bytes().to_vec());
        let validating = self.validating.get_opt(name).await?.map(|configuration| {
            let webhooks = configuration.webhooks.unwrap_or_default();
            webhooks.into_iter().map(|w| (w.name, w.client_config.ca_bundle)).collect::<Vec<_>>()
        });
        let mutating = self.mutating.get_opt(name).await?.map(|configuration| {
            let webhooks = configuration.webhooks.unwrap_or_default();
            webhooks.into_iter().map(|w| (w.name, w.client_config.ca_bundle)).collect::<Vec<_>>()
        });
        for (kind, found) in [("validating", &validating), ("mutating", &mutating)] {
            if found.is_none() {
                tracing::info!(configuration = %name, kind, "no webhook configuration yet: its CA is set when it appears");
            }
        }
        let mut written = false;
        if let Some(patch) = ca_patch(&validating.unwrap_or_default(), &wanted)? {
            self.validating.patch(name, &PatchParams::default(), &patch).await?;
            written = true;
        }
        if let Some(patch) = ca_patch(&mutating.unwrap_or_default(), &wanted)? {
            self.mutating.patch(name, &PatchParams::default(), &patch).await?;
            written = true;
        }
        Ok(written)
    }
}

/// What puts the CA into those of the webhooks (name, CA) that do not have it.
fn ca_patch(webhooks: &[(String, Option<ByteString>)], wanted: &ByteString) -> Result<Option<Patch<()>>, KeepError> {
    let mut patch = Vec::new();
    for (i, (name, _)) in webhooks.iter().enumerate().filter(|(_, (_, ca))| ca.as_ref() != Some(wanted)) {
        patch.push(json!({"op": "test", "path": format!("/webhooks/{i}/name"), "value": name}));
        let path = format!("/webhooks/{i}/clientConfig/caBundle");
        patch.push(json!({"op": "add", "path": path, "value": wanted}));
    }
    if patch.is_empty() {
        return Ok(None);
    }
    let patch: json_patch::Patch = serde_json::from_value(json!(patch)).map_err(kube::Error::SerdeError)?;
    Ok(Some(Patch::Json(patch)))
}

fn is_change<K>(event: Option<&watcher::Event<K>>) -> Option<()> {
    match event? {
        watcher::Event::Apply(_) | watcher::Event::Delete(_) | watcher::Event::InitDone => Some(()),
        watcher::Event::Init | watcher::Event::InitApply(_) => None,
    }
}

fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO)
}

fn read(secret: &Secret) -> Option<Pair> {
    let text = |key: &str| {
        let bytes = secret.data.as_ref()?.get(key)?;
        String::from_utf8(bytes.0.clone()).ok().filter(|t| !t.is_empty())
    };
    let not_after = secret.metadata.annotations.as_ref()?.get(NOT_AFTER)?.parse().ok()?;
    let pair = Pair { ca_bundle: text(CA)?, cert: text(CERT)?, key: text(KEY)?, not_after };
    pair.certified_key().is_ok().then_some(pair)
}

fn names_of(secret: &Secret) -> Vec<String> {
    let names = secret.metadata.annotations.as_ref().and_then(|a| a.get(DNS_NAMES));
    names.map(|n| n.split(',').map(str::to_owned).collect()).unwrap_or_default()
}
