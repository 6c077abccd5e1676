//! The certificates of one control plane, as kubeadm lays them out: a cluster CA,
//! a CA for etcd, one for the front proxy, and the key pair that signs
//! ServiceAccount tokens.
//!
//! The files below `pki/` are what the components read. All keys are ECDSA P-256,
//! which takes microseconds.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// An issued certificate with its key, as PEM and as files.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate's file.
    pub cert: PathBuf,
    /// The private key's file.
    pub key: PathBuf,
    /// The certificate, PEM.
    pub cert_pem: String,
    /// The private key, PKCS#8 PEM.
    pub key_pem: String,
}

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The CA certificate's file.
    pub cert: PathBuf,
    /// The CA key's file.
    pub key: PathBuf,
    /// The CA certificate, PEM.
    pub cert_pem: String,
}

/// The certificate authorities and common keys of one control plane.
pub struct Pki {
    dir: PathBuf,
    /// Signs the API server, the kubelets and all clients.
    pub cluster: Authority,
    /// Signs etcd and its only client, the API server.
    pub etcd: Authority,
    /// Signs the API server's identity towards aggregated API servers.
    pub front_proxy: Authority,
    /// Signs ServiceAccount tokens.
    pub service_account_key: PathBuf,
    /// Verifies them.
    pub service_account_public_key: PathBuf,
}

impl Pki {
    /// Makes the authorities and writes them below `dir`.
    pub(crate) fn create(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        let service_account_key = dir.join("service-account.key");
        let key = KeyPair::generate()?;
        write_secret(&service_account_key, &key.serialize_pem())?;
        let service_account_public_key = dir.join("service-account.pub");
        fs::write(&service_account_public_key, key.public_key_pem())?;
        Ok(Self {
            cluster: Authority::create(dir, "kubernetes")?,
            etcd: Authority::create(dir, "etcd-ca")?,
            front_proxy: Authority::create(dir, "front-proxy-ca")?,
            service_account_key,
            service_account_public_key,
            dir: dir.to_owned(),
        })
    }

    /// A client certificate of the cluster CA: `user` becomes the user name,
    /// `group` the group.
    pub fn client(&self, user: &str, group: Option<&str>) -> Result<Identity> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(user, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.cluster.issue(&self.dir, &user.replace(':', "-"), params)
    }

    /// A serving certificate of the cluster CA, written as `file`.{crt,key}.
    pub fn serving(&self, file: &str, common_name: &str, addresses: &[IpAddr], names: &[&str]) -> Result<Identity> {
        let params = serving_params(common_name, addresses, names)?;
        self.cluster.issue(&self.dir, file, params)
    }

    /// etcd's serving certificate.
    pub(crate) fn etcd_serving(&self, address: IpAddr) -> Result<Identity> {
        let params = serving_params("etcd", &[address], &["localhost"])?;
        self.etcd.issue(&self.dir, "etcd", params)
    }

    /// The API server's certificate towards etcd.
    pub(crate) fn etcd_client(&self) -> Result<Identity> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name("kube-apiserver-etcd-client", None);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.etcd.issue(&self.dir, "apiserver-etcd-client", params)
    }

    /// The API server's certificate towards aggregated API servers.
    pub(crate) fn front_proxy_client(&self) -> Result<Identity> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name("front-proxy-client", None);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.front_proxy.issue(&self.dir, "front-proxy-client", params)
    }
}

impl Authority {
    fn create(dir: &Path, common_name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(common_name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let cert_pem = params.self_signed(&key)?.pem();
        let cert = dir.join(format!("{common_name}.crt"));
        fs::write(&cert, &cert_pem).with_context(|| cert.display().to_string())?;
        let key_file = dir.join(format!("{common_name}.key"));
        write_secret(&key_file, &key.serialize_pem())?;
        Ok(Self { issuer: Issuer::new(params, key), cert, key: key_file, cert_pem })
    }

    fn issue(&self, dir: &Path, file: &str, mut params: CertificateParams) -> Result<Identity> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let identity = Identity {
            cert: dir.join(format!("{file}.crt")),
            key: dir.join(format!("{file}.key")),
            cert_pem: params.signed_by(&key, &self.issuer)?.pem(),
            key_pem: key.serialize_pem(),
        };
        fs::write(&identity.cert, &identity.cert_pem)?;
        write_secret(&identity.key, &identity.key_pem)?;
        Ok(identity)
    }
}

fn serving_params(common_name: &str, addresses: &[IpAddr], names: &[&str]) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(common_name, None);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    for address in addresses {
        params.subject_alt_names.push(SanType::IpAddress(*address));
    }
    for name in names {
        params.subject_alt_names.push(SanType::DnsName((*name).try_into()?));
    }
    Ok(params)
}

fn name(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name
}

/// Writes a file that only its owner reads.
pub(crate) fn write_secret(path: &Path, content: &str) -> Result<()> {
    fs::write(path, content).with_context(|| path.display().to_string())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}
