//! `logferry certs`: makes a CA, and certificates for servers and clients, for a trial or a small site. Further certificates
//! can be signed later.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use chrono::{Datelike, NaiveDate, SecondsFormat, TimeDelta, Utc};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::{Failure, print};
use crate::certificate;
use crate::config::Fingerprint;
use crate::tls;

/// Days until a certificate expires. Some verifiers refuse server certificates with more than 825.
const VALID_DAYS: u32 = 825;
/// Days until a CA expires. They exceed those of its certificates.
const CA_VALID_DAYS: u32 = 3650;
/// The start of a CA's name. A timestamp after it makes each name unique. Verifiers then report a certificate of another CA
/// as "unknown", not as "badly signed".
const CA_NAME: &str = "logferry trial CA ";

#[derive(clap::Args)]
pub struct Arguments {
    /// Directory the files are written to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// DNS name or IP address of the server; senders verify it, so give every name and address they use, separated by commas
    #[arg(long, value_name = "NAME", required_unless_present = "ca", value_delimiter = ',')]
    name: Vec<String>,

    /// A client certificate for each of these names, separated by commas: NAME.pem and NAME-key.pem [default: one without
    /// a name, client.pem]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    client: Vec<String>,

    /// Sign with this CA instead of making one: to add a host later, or for a certificate that expires
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// Private key of --ca [default: ca-key.pem beside it]
    #[arg(long, value_name = "FILE", requires = "ca")]
    ca_key: Option<PathBuf>,

    /// Days until what is signed expires
    #[arg(long, value_name = "DAYS", default_value_t = VALID_DAYS, value_parser = clap::value_parser!(u32).range(1..=CA_VALID_DAYS as i64))]
    days: u32,
}

/// The files to write.
pub type Files = Vec<File>;

/// A certificate or a key, as a file.
pub struct File {
    pub name: String,
    pub content: String,
    mode: u32,
    /// `None` for a key.
    fingerprint: Option<Fingerprint>,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    for (flag, name) in arguments.name.iter().map(|n| ("name", n)).chain(arguments.client.iter().map(|n| ("client", n)))
    {
        if !is_name(name) {
            let says = "is neither a DNS name nor an IP address (write IPv6 without brackets)";
            return Err(Failure::usage(format!("certs: --{flag} `{name}` {says}")));
        }
    }
    let failed = |error: String| Failure::config(&format!("certs: {error}"));
    let files = asked_for(arguments).map_err(failed)?;
    write(&files, &arguments.out).map_err(failed)?;
    for file in &files {
        let path = arguments.out.join(&file.name);
        match &file.fingerprint {
            Some(fingerprint) => print(format!("{}  {fingerprint}\n", path.display()))?,
            None => print(format!("{}\n", path.display()))?,
        }
    }
    Ok(())
}

/// Makes a CA, a server's certificate for `names` and a client's certificate.
pub fn make(names: &[String]) -> Result<Files, String> {
    let (signer, mut files) = Signer::new(VALID_DAYS)?;
    files.extend(signer.server(names)?);
    files.extend(signer.client(None)?);
    Ok(files)
}

fn asked_for(arguments: &Arguments) -> Result<Files, String> {
    let Arguments { name, client, ca, ca_key, days, .. } = arguments;
    let (signer, mut files) = match ca {
        Some(ca) => (Signer::read(ca, ca_key.clone().unwrap_or(ca.with_file_name("ca-key.pem")), *days)?, Vec::new()),
        None => Signer::new(*days)?,
    };
    if !name.is_empty() {
        files.extend(signer.server(name)?);
    }
    for name in client {
        files.extend(signer.client(Some(name))?);
    }
    if client.is_empty() && ca.is_none() {
        files.extend(signer.client(None)?);
    }
    if let Some(ca) = ca {
        let server = name.first().map(|name| name.replace('*', "any"));
        for file in files.iter().filter(|file| file.fingerprint.is_some()) {
            let server = server.as_deref().filter(|_| file.name == SERVER);
            tls::would_accept(ca, file.content.as_bytes(), server).map_err(|error| {
                format!(
                    "{error}: this CA cannot be signed with. It must be valid, its key the right one, and its name a common \
                     name alone, as `logferry certs` and `openssl req -subj /CN=…` make it"
                )
            })?;
        }
    }
    if files.is_empty() {
        return Err("nothing to sign: give --name or --client".to_owned());
    }
    Ok(files)
}

const SERVER: &str = "server.pem";

/// A CA with its private key.
struct Signer {
    issuer: Issuer<'static, KeyPair>,
    /// Whether this command made the CA. The key identifier of another CA may differ from the one that rcgen computes, so
    /// certificates leave it out: verifiers refuse a wrong identifier, but accept a missing one.
    is_ours: bool,
    days: u32,
}

impl Signer {
    /// Makes a CA, and its files.
    fn new(days: u32) -> Result<(Self, Files), String> {
        let key = KeyPair::generate().map_err(said)?;
        let name = format!("{CA_NAME}{}", Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true));
        let mut params = named(&name, Vec::new(), CA_VALID_DAYS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(said)?;
        let files = pair("ca", &certificate, &key)?;
        Ok((Self { issuer: Issuer::new(params, key), is_ours: true, days }, files))
    }

    fn read(ca: &Path, key: PathBuf, days: u32) -> Result<Self, String> {
        let facts = tls::facts(ca).map_err(said)?.swap_remove(0);
        if !facts.is_ca {
            return Err(format!("{}: this is no CA, it may not sign", ca.display()));
        }
        let unusable = |error: String| format!("{}: {error}", key.display());
        let pem = fs::read_to_string(&key).map_err(|error| unusable(format!("cannot read it: {error}")))?;
        let pair = KeyPair::from_pem(&pem).map_err(|error| {
            unusable(format!("{error}; it needs -----BEGIN PRIVATE KEY----- (PKCS #8, not encrypted)"))
        })?;
        let is_ours = facts.subject.starts_with(CA_NAME);
        Ok(Self { issuer: Issuer::new(named(&facts.subject, Vec::new(), 1)?, pair), is_ours, days })
    }

    fn server(&self, names: &[String]) -> Result<Files, String> {
        let first = names.first().map_or("logferry", String::as_str);
        self.sign("server", first, names.to_vec(), ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn client(&self, name: Option<&String>) -> Result<Files, String> {
        let names = name.cloned().into_iter().collect();
        let (file, name) = name.map_or(("client", "logferry client"), |name| (name, name));
        self.sign(file, name, names, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(
        &self,
        file: &str,
        name: &str,
        names: Vec<String>,
        purpose: ExtendedKeyUsagePurpose,
    ) -> Result<Files, String> {
        let key = KeyPair::generate().map_err(said)?;
        let mut params = named(name, names, self.days)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = self.is_ours;
        let certificate = params.signed_by(&key, &self.issuer).map_err(said)?;
        pair(file, &certificate, &key)
    }
}

fn pair(name: &str, certificate: &Certificate, key: &KeyPair) -> Result<Files, String> {
    let facts = certificate::read(certificate.der()).map_err(said)?;
    let fingerprint = Some(Fingerprint::of(&facts));
    Ok(vec![
        File { name: format!("{name}.pem"), content: certificate.pem(), mode: 0o644, fingerprint },
        File { name: format!("{name}-key.pem"), content: key.serialize_pem(), mode: 0o600, fingerprint: None },
    ])
}

fn named(common_name: &str, names: Vec<String>, days: u32) -> Result<CertificateParams, String> {
    let mut params = CertificateParams::new(names).map_err(said)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    // One day back, for clocks that are a little behind.
    let today = Utc::now().date_naive();
    let midnight = |date: NaiveDate| rcgen::date_time_ymd(date.year(), date.month() as u8, date.day() as u8);
    params.not_before = midnight(today - TimeDelta::days(1));
    params.not_after = midnight(today + TimeDelta::days(days.into()));
    Ok(params)
}

/// Can a certificate have this name? A wildcard stands for the whole leftmost label (RFC 5425 5.2).
fn is_name(name: &str) -> bool {
    let host = name.strip_prefix("*.").unwrap_or(name);
    !host.starts_with('[') && !host.ends_with('.') && tls::server_name(host).is_ok()
}

/// Writes all files or none. Each file is written under a temporary name, then all are renamed. Existing files, and files of
/// another run, are not touched.
fn write(files: &Files, dir: &Path) -> Result<(), String> {
    fs::create_dir_all(dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
    for (index, file) in files.iter().enumerate() {
        is_free(&dir.join(&file.name))?;
        is_free(&temporary(dir, file))?;
        if files[..index].iter().any(|other| other.name == file.name) {
            return Err(format!("two certificates would be called {}; nothing was written", file.name));
        }
    }
    let mut made = Vec::new();
    let written = make_files(files, dir, &mut made);
    if written.is_err() {
        made.iter().for_each(|path| drop(fs::remove_file(path)));
    }
    written
}

/// Writes the files. `made` lists the paths that this call has created, even after an error.
fn make_files(files: &Files, dir: &Path, made: &mut Vec<PathBuf>) -> Result<(), String> {
    for file in files {
        let path = temporary(dir, file);
        let cannot = |error| format!("cannot write {}: {error}", path.display());
        let mut open = OpenOptions::new().write(true).create_new(true).mode(file.mode).open(&path).map_err(cannot)?;
        made.push(path.clone());
        open.write_all(file.content.as_bytes()).and_then(|()| open.sync_all()).map_err(cannot)?;
    }
    for (file, made) in files.iter().zip(made) {
        let path = dir.join(&file.name);
        // No other run can create this name in between, because it would need the temporary name first.
        is_free(&path)?;
        fs::rename(&made, &path).map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        *made = path;
    }
    Ok(())
}

fn is_free(path: &Path) -> Result<(), String> {
    match path.exists() {
        true => Err(format!("{} is there already; nothing was written (choose another --out)", path.display())),
        false => Ok(()),
    }
}

/// The temporary name of a file, until all files are written.
fn temporary(dir: &Path, file: &File) -> PathBuf {
    dir.join(format!("{}.new", file.name))
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}
