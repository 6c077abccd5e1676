//! The webhook's certificates: a CA that signs exactly one serving certificate and is then thrown away.
//!
//! No CA key is ever stored, so the Secret holds nothing that could sign for another name. A rotation makes a new pair;
//! the previous CA stays in the bundle until the next one, because both may be in use while replicas reload.

use jiff::{Timestamp, ToSpan};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::sync::Arc;

/// Days for which a certificate is valid.
pub const VALID_DAYS: i64 = 365;
/// Days before the end at which it is replaced.
pub const ROTATE_DAYS_BEFORE_END: i64 = 120;

/// What goes wrong with certificates.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// Making one failed.
    #[error("make certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// One does not decode.
    #[error("read certificate: {0}")]
    Read(String),
    /// A date is out of range.
    #[error("certificate dates: {0}")]
    Date(#[from] jiff::Error),
}

/// A CA certificate with the serving certificate and key it signed, in PEM.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// CA certificates, newest first.
    pub ca_bundle: String,
    /// Serving certificate.
    pub cert: String,
    /// Key of the serving certificate.
    pub key: String,
    /// When the serving certificate ends.
    pub not_after: Timestamp,
}

/// Makes a pair for `dns_names`, valid from a day before `now`.
///
/// # Errors
/// When a name is no DNS name, or the system has no randomness.
pub fn make(dns_names: &[String], now: Timestamp) -> Result<Pair, CertError> {
    let today = now.to_zoned(jiff::tz::TimeZone::UTC).date();
    let (from, until) = (today.checked_sub(1.day())?, today.checked_add(VALID_DAYS.days())?);
    let day =
        |d: jiff::civil::Date| rcgen::date_time_ymd(d.year().into(), d.month().unsigned_abs(), d.day().unsigned_abs());

    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::<String>::new())?;
    ca.distinguished_name.push(DnType::CommonName, format!("flowforge-webhook-ca-{}", now.as_second()));
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    (ca.not_before, ca.not_after) = (day(from), day(until));
    let ca_cert = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(dns_names.to_vec())?;
    let name = dns_names.first().cloned().unwrap_or_default();
    leaf.distinguished_name.push(DnType::CommonName, name);
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (leaf.not_before, leaf.not_after) = (day(from), day(until));
    let cert = leaf.signed_by(&key, &issuer)?;

    let not_after = until.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp();
    Ok(Pair { ca_bundle: ca_cert.pem(), cert: cert.pem(), key: key.serialize_pem(), not_after })
}

impl Pair {
    /// Puts the CA of the pair that this one replaces behind its own.
    #[must_use]
    pub fn after(mut self, previous: &str) -> Self {
        if let Some(newest) = first_certificate(previous) {
            self.ca_bundle.push_str(&newest);
        }
        self
    }

    /// When the pair is to be replaced.
    #[must_use]
    pub fn rotate_at(&self) -> Timestamp {
        self.not_after.saturating_sub((ROTATE_DAYS_BEFORE_END * 24).hours()).unwrap_or(self.not_after)
    }

    /// The form that rustls serves.
    ///
    /// # Errors
    /// When certificate and key do not decode or do not belong together.
    pub fn certified_key(&self) -> Result<Arc<CertifiedKey>, CertError> {
        let read = |e: &dyn std::fmt::Display| CertError::Read(e.to_string());
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(self.cert.as_bytes()).collect::<Result<_, _>>().map_err(|e| read(&e))?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(|e| read(&e))?;
        let signer = any_supported_type(&key).map_err(|e| read(&e))?;
        let certified = CertifiedKey::new(chain, signer);
        certified.keys_match().map_err(|e| read(&e))?;
        Ok(Arc::new(certified))
    }
}

fn first_certificate(bundle: &str) -> Option<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let end = bundle.find(END)? + END.len();
    Some(format!("{}\n", bundle.get(..end)?.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        vec!["flowforge-webhook.flowforge-system.svc".into()]
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_pair_serves_and_is_rotated_well_before_its_end() {
        let now = at("2026-11-23T10:00:00Z");
        let pair = make(&names(), now).unwrap();
        assert!(pair.certified_key().is_ok());
        assert_eq!(pair.not_after, at("2027-11-23T00:00:00Z"));
        assert_eq!(pair.rotate_at(), at("2027-07-26T00:00:00Z"));
    }

    #[test]
    fn the_bundle_keeps_exactly_one_previous_ca() {
        let first = make(&names(), at("2026-01-01T00:00:00Z")).unwrap();
        let second = make(&names(), at("2026-09-01T00:00:00Z")).unwrap().after(&first.ca_bundle);
        let third = make(&names(), at("2027-05-01T00:00:00Z")).unwrap().after(&second.ca_bundle);
        assert_eq!(second.ca_bundle.matches("BEGIN CERTIFICATE").count(), 2);
        assert!(second.ca_bundle.contains(first.ca_bundle.trim()));
        assert_eq!(third.ca_bundle.matches("BEGIN CERTIFICATE").count(), 2);
        assert!(!third.ca_bundle.contains(first.ca_bundle.trim()));
    }

    #[test]
    fn a_key_of_another_pair_is_refused() {
        let now = at("2026-11-23T10:00:00Z");
        let mut pair = make(&names(), now).unwrap();
        pair.key = make(&names(), now).unwrap().key;
        assert!(pair.certified_key().is_err());
    }
}
