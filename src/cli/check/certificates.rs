//! Checks the certificates and secrets that a config names: their use, validity, names, order and issuers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path};

use chrono::{DateTime, Utc};
use rustls_pki_types::CertificateDer;

use super::Report;
use crate::certificate::{self, Facts};
use crate::config::{self, Listen};
use crate::forward;
use crate::tls;

/// A certificate that expires within this many days causes a warning.
const EXPIRY_WARNING_DAYS: i64 = 30;
/// The permission of all users to read a file.
const WORLD_READABLE: u32 = 0o004;
/// The mode that Docker gives a mounted secret.
const SECRET_MODE: u32 = 0o444;

pub fn of_listener(listener: &Listen, report: &mut Report) {
    let Some(files) = &listener.tls else { return };
    let owner = format!("listen {}", listener.address);
    match tls::acceptor(files) {
        Ok(_) => report.note(format!("{owner}: certificate {} and its key can be used", files.cert.display())),
        Err(error) => report.problem(format!("{owner}: {error}")),
    }
    let ca = files.client_ca.as_deref();
    check_identity(&owner, &files.cert, &files.key, tls::Role::Server, ca, report);
    ca.into_iter().for_each(|ca| check_ca(&owner, ca, report));
}

/// Checks tokens, keys and users.
pub fn secrets_of(listener: &Listen, report: &mut Report) {
    let owner = format!("listen {}", listener.address);
    if let Err(error) = tls::Credentials::of_secrets(listener) {
        report.problem(format!("{owner}: {error}"));
    }
    listener.secret_files().for_each(|path| check_key(&owner, path, report));
}

/// Checks the token of the live tail.
pub fn secrets_of_admin(admin: &config::Admin, report: &mut Report) {
    let Some(secret) = admin.tail_token() else { return };
    if let Err(error) = secret.read() {
        report.problem(format!("admin: {error}"));
    }
    secret.file().into_iter().for_each(|path| check_key("admin", path, report));
}

/// Checks the token or the password of a forward.
pub fn secrets_of_forward(settings: &config::Forward, report: &mut Report) {
    let owner = format!("forward {}", settings.name);
    for secret in settings.secrets() {
        if let Err(error) = secret.read() {
            report.problem(format!("{owner}: {error}"));
        }
        secret.file().into_iter().for_each(|path| check_key(&owner, path, report));
    }
}

pub fn of_forward(settings: &config::Forward, report: &mut Report) {
    let owner = format!("forward {}", settings.name);
    match forward::tls_connector(settings) {
        Ok(None) => return,
        Ok(Some(_)) => report.note(format!("{owner}: certificates can be used")),
        Err(error) => report.problem(format!("{owner}: {error}")),
    }
    let ca = settings.tls.ca.as_deref();
    if let Some((cert, key)) = settings.tls.identity() {
        check_identity(&owner, cert, key, tls::Role::Client, ca, report);
    }
    ca.into_iter().for_each(|ca| check_ca(&owner, ca, report));
}

/// Checks a certificate of the relay. An unreadable file has been reported before.
fn check_identity(owner: &str, cert: &Path, key: &Path, role: tls::Role, ca: Option<&Path>, report: &mut Report) {
    let Ok(chain) = tls::chain(cert) else { return };
    let Some(facts) = facts(owner, cert, &chain, report) else { return };
    let own = &facts[0];
    report.note(format!("{owner}: {}: {}", cert.display(), displayed(own)));
    let valid = facts.iter().filter(|facts| !is_valid_now(owner, cert, facts, report)).count() == 0;
    if own.is_ca && facts.len() > 1 {
        let says = format!("{owner}: {}: its own certificate must come first, and the CA's behind it", cert.display());
        report.problem(says);
    } else if let Some(pair) = facts.windows(2).find(|pair| !pair[0].names_as_issuer(&pair[1])) {
        report.warning(format!(
            "{owner}: {}: `{}` is signed by `{}`, and behind it stands `{}`: some will not find the way to the CA; put each \
             certificate in front of the one that signed it",
            cert.display(),
            pair[0].subject,
            pair[0].issuer,
            pair[1].subject
        ));
    }
    if role == tls::Role::Server && own.names.is_empty() {
        report.warning(format!(
            "{owner}: {}: it is for no name (subjectAltName), so senders that verify it will refuse it; make one that has the \
             names they use",
            cert.display()
        ));
    }
    let is_named = role == tls::Role::Client || !own.names.is_empty();
    if let Some(ca) = ca.filter(|_| valid && is_named) {
        check_way_to_ca(owner, (cert, &chain, &facts), role, ca, report);
    }
    check_key(owner, key, report);
}

/// Checks that a certificate leads to one of these CAs, if it names one as its issuer. The other side may use other CAs.
fn check_way_to_ca(
    owner: &str,
    (cert, chain, facts): (&Path, &[CertificateDer<'_>], &[Facts]),
    role: tls::Role,
    ca: &Path,
    report: &mut Report,
) {
    let Ok(cas) = tls::chain(ca) else { return };
    let cas: Vec<Facts> = cas.iter().filter_map(|der| certificate::read(der).ok()).collect();
    let Some(signer) = cas.iter().find(|ca| facts.iter().any(|facts| facts.names_as_issuer(ca))) else { return };
    match tls::leads_to(chain, ca, role, facts[0].names.first().map(ToString::to_string).as_deref()) {
        Ok(()) => report.note(format!("{owner}: {}: leads to `{}` of {}", cert.display(), signer.subject, ca.display())),
        Err(error) => report.warning(format!(
            "{owner}: {}: it names `{}` of {} as its CA, but does not hold up: {error}; was the CA made anew, or is the \
             certificate for another use?",
            cert.display(),
            signer.subject,
            ca.display()
        )),
    }
}

fn check_ca(owner: &str, path: &Path, report: &mut Report) {
    let Ok(chain) = tls::chain(path) else { return };
    for facts in facts(owner, path, &chain, report).into_iter().flatten() {
        let days = days_left(&facts, Utc::now());
        if days < EXPIRY_WARNING_DAYS {
            report.warning(format!(
                "{owner}: {}: the CA `{}` {}; peers then refuse the certificates that it signed; have a new CA made",
                path.display(),
                facts.subject,
                ends(&facts, days)
            ));
        }
    }
}

fn facts(owner: &str, path: &Path, chain: &[CertificateDer<'_>], report: &mut Report) -> Option<Vec<Facts>> {
    let facts = chain.iter().map(|der| certificate::read(der)).collect::<Result<Vec<_>, _>>();
    facts.map_err(|error| report.problem(format!("{owner}: {}: {error}", path.display()))).ok()
}

fn is_valid_now(owner: &str, path: &Path, facts: &Facts, report: &mut Report) -> bool {
    let now = Utc::now();
    let days = days_left(facts, now);
    let (path, subject) = (path.display(), &facts.subject);
    if now > facts.not_after {
        report.problem(format!("{owner}: {path}: `{subject}` {}; have it signed anew", ends(facts, days)));
        return false;
    }
    if now < facts.not_before {
        let from = facts.not_before.naive_utc();
        report.problem(format!(
            "{owner}: {path}: `{subject}` is valid from {from} UTC on; is this machine's clock right?"
        ));
        return false;
    }
    if days < EXPIRY_WARNING_DAYS {
        report.warning(format!("{owner}: {path}: `{subject}` {}; have it signed anew", ends(facts, days)));
    }
    true
}

fn days_left(facts: &Facts, now: DateTime<Utc>) -> i64 {
    facts.not_after.signed_duration_since(now).num_days()
}

fn ends(facts: &Facts, days: i64) -> String {
    let at = facts.not_after.date_naive();
    if facts.not_after < Utc::now() {
        format!("ended on {at}, {} days ago", -days)
    } else {
        format!("ends on {at}, in {days} days")
    }
}

fn displayed(facts: &Facts) -> String {
    let names = if facts.names.is_empty() {
        "no name".to_owned()
    } else {
        facts.names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    format!("`{}`, for {names}, until {}, signed by `{}`", facts.subject, facts.not_after.date_naive(), facts.issuer)
}

/// Warns of a key that all users can read. A mounted secret is readable for all users of its container, which is intended.
fn check_key(owner: &str, path: &Path, report: &mut Report) {
    let Ok(found) = fs::metadata(path) else { return };
    let mode = found.permissions().mode() & 0o777;
    if mode & WORLD_READABLE != 0 && mode != SECRET_MODE && !is_mounted_secret(path) {
        report.warning(format!("{owner}: everybody on this machine can read the key {}; chmod o= {0}", path.display()));
    }
}

/// Is the file in Docker's and Podman's directory for secrets, or in one of Kubernetes' directories, which are links to
/// `..2026_11_21_…`?
fn is_mounted_secret(path: &Path) -> bool {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let hidden = |part: Component<'_>| part.as_os_str().to_str().is_some_and(|name| name.starts_with(".."));
    path.starts_with("/run/secrets") || real.starts_with("/run/secrets") || real.components().any(hidden)
}
