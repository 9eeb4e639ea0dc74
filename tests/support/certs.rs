//! Certificates for the tests, made by `logferry certs` once for each process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use rustls::RootCertStore;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

/// A directory with `ca.pem`, `server.pem`, `client.pem` and their keys. The server is 127.0.0.1, [::1], localhost and
/// collector.test.
pub struct Certs {
    dir: PathBuf,
}

impl Certs {
    pub fn get() -> &'static Self {
        static CERTS: OnceLock<Certs> = OnceLock::new();
        CERTS.get_or_init(|| {
            // A static is never dropped; the next process cleans up.
            let target = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
            remove_those_of_the_dead(target);
            Self::make(target.join(format!("certs-{}", std::process::id())))
        })
    }

    /// Certificates that another program has made in a directory, under the same file names.
    pub fn of(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Certificates of another CA, which peers that trust [`Certs::get`] reject.
    pub fn others(dir: &TempDir) -> Self {
        Self::make(dir.path().join("other-certs"))
    }

    /// Runs `logferry certs` with these arguments; the files that `dir` already has stay.
    pub fn made(dir: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_logferry"));
        let output = command.arg("certs").args(arguments).arg("--out").arg(dir).output().expect("logferry starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { dir: dir.to_owned() }
    }

    /// The fingerprint of a certificate, as RFC 5425 writes it.
    pub fn fingerprint(&self, name: &str) -> String {
        let facts = logferry::internals::certificate::read(&self.chain(name)[0]).expect("a certificate");
        logferry::internals::config::Fingerprint::of(&facts).to_string()
    }

    /// Replaces these files in `dir`, each atomically, as a careful operator does.
    pub fn put(&self, names: &[&str], dir: &Path) {
        for name in names {
            let aside = dir.join(format!("{name}.new"));
            std::fs::copy(self.dir.join(name), &aside).expect("a copy");
            std::fs::rename(aside, dir.join(name)).expect("a rename");
        }
    }

    fn make(dir: PathBuf) -> Self {
        Self::made(&dir, &["--name", "127.0.0.1,::1,localhost,collector.test"])
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.join(name).to_str().expect("a path in UTF-8").to_owned()
    }

    /// The forward's key that makes it trust [`Certs::get`]; empty if `url` is not TLS.
    pub fn trusted(url: &str) -> String {
        let is_tls = url.contains("+tls://") || url.starts_with("https://");
        if is_tls { format!("ca = \"{}\"", Self::get().path("ca.pem")) } else { String::new() }
    }

    /// The lines of a config that make a listener speak TLS.
    pub fn listen(&self) -> String {
        format!("cert = \"{}\"\nkey = \"{}\"\n", self.path("server.pem"), self.path("server-key.pem"))
    }

    pub fn chain(&self, name: &str) -> Vec<CertificateDer<'static>> {
        let certificates = CertificateDer::pem_file_iter(self.dir.join(name)).expect("a PEM file");
        certificates.map(|certificate| certificate.expect("a certificate")).collect()
    }

    pub fn key(&self, name: &str) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_file(self.dir.join(name)).expect("a key")
    }

    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        for certificate in self.chain("ca.pem") {
            roots.add(certificate).expect("a CA");
        }
        roots
    }
}

/// A certificate with a private key that does not belong to it, like a stolen certificate.
pub fn identity_with_key_of(certs: &Certs, certificate: &str, other: &Certs, key: &str) -> Arc<SingleCertAndKey> {
    let key = rustls::crypto::ring::sign::any_supported_type(&other.key(key)).expect("a key");
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(certs.chain(certificate), key)))
}

fn remove_those_of_the_dead(target: &std::path::Path) {
    for entry in std::fs::read_dir(target).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix("certs-")?.parse::<u32>().ok());
        let is_dead = |pid: u32| pid == std::process::id() || !PathBuf::from(format!("/proc/{pid}")).exists();
        if pid.is_some_and(is_dead) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
