//! `logferry certs`: a CA, a server and a client certificate, good for a trial or a small site.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use chrono::{Datelike, NaiveDate, SecondsFormat, TimeDelta, Utc};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use super::{Failure, print};
use crate::tls;

/// Days until a certificate expires. 825 is the most that some verifiers take for a server.
const VALID_DAYS: i64 = 825;
/// The CA outlives what it signs.
const CA_VALID_DAYS: i64 = 3650;

#[derive(clap::Args)]
pub struct Arguments {
    /// Directory the files are written to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// DNS name or IP address of the server; senders verify it, so give every name and address they use, separated by commas
    #[arg(long, value_name = "NAME", required = true, value_delimiter = ',')]
    name: Vec<String>,
}

/// What belongs in the directory: file name, content, and who may read it.
type Files = Vec<(&'static str, String, u32)>;

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    for name in &arguments.name {
        tls::server_name(name).map_err(|_| {
            Failure::usage(format!(
                "certs: --name `{name}` is neither a DNS name nor an IP address (write IPv6 without brackets)"
            ))
        })?;
    }
    let files = make(&arguments.name).map_err(|error| Failure::config(&format!("certs: {error}")))?;
    fs::create_dir_all(&arguments.out)
        .map_err(|error| Failure::config(&format!("certs: cannot make {}: {error}", arguments.out.display())))?;
    for (name, ..) in &files {
        let path = arguments.out.join(name);
        if path.exists() {
            let says =
                format!("certs: {} is there already; nothing was written (choose another --out)", path.display());
            return Err(Failure::config(&says));
        }
    }
    for (name, content, mode) in &files {
        let path = arguments.out.join(name);
        write_new(&path, content, *mode)
            .map_err(|error| Failure::config(&format!("certs: cannot write {}: {error}", path.display())))?;
        print(format!("{}\n", path.display()))?;
    }
    Ok(())
}

/// Everything needed for mutual TLS between a sender and a server called `names`.
pub fn make(names: &[String]) -> Result<Files, rcgen::Error> {
    let ca_key = KeyPair::generate()?;
    // A name of its own, so that certificates of another one are "unknown" and not "badly signed".
    let ca_name = format!("logferry trial CA {}", Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true));
    let mut ca = named(&ca_name, Vec::new(), CA_VALID_DAYS)?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let ca_key_pem = ca_key.serialize_pem();
    let issuer = Issuer::new(ca, ca_key);

    let signed = |common_name: &str, names: &[String], purpose| {
        let key = KeyPair::generate()?;
        let mut params = named(common_name, names.to_vec(), VALID_DAYS)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        Ok::<_, rcgen::Error>((params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
    };
    let server_name = names.first().map_or("logferry", String::as_str);
    let (server, server_key) = signed(server_name, names, ExtendedKeyUsagePurpose::ServerAuth)?;
    let (client, client_key) = signed("logferry client", &[], ExtendedKeyUsagePurpose::ClientAuth)?;
    Ok(vec![
        ("ca.pem", ca_pem, 0o644),
        ("ca-key.pem", ca_key_pem, 0o600),
        ("server.pem", server, 0o644),
        ("server-key.pem", server_key, 0o600),
        ("client.pem", client, 0o644),
        ("client-key.pem", client_key, 0o600),
    ])
}

fn named(common_name: &str, names: Vec<String>, days: i64) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    // A day back, for clocks that are a little behind ours.
    let today = Utc::now().date_naive();
    let midnight = |date: NaiveDate| rcgen::date_time_ymd(date.year(), date.month() as u8, date.day() as u8);
    params.not_before = midnight(today - TimeDelta::days(1));
    params.not_after = midnight(today + TimeDelta::days(days));
    Ok(params)
}

fn write_new(path: &Path, content: &str, mode: u32) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}
