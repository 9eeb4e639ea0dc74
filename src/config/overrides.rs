//! What a compose file or a command line may set without a config file: each setting's flag, its `LOGFERRY_…` variable
//! and its help in one place.
//!
//! Precedence: flag, then variable, then the config file, then the default. A list given here replaces the file's list.

use std::path::Path;

use super::DEFAULT_FILE;
use super::file::{File, Forward, Leaf, Leaves, Listen, unwritten};

#[derive(clap::Args, Clone, Debug, Default)]
pub struct Overrides {
    /// Config file (TOML); without it /etc/logferry.toml is read if it is there
    #[arg(long, short, env = "LOGFERRY_CONFIG", value_name = "FILE")]
    pub config: Option<String>,

    /// Where to listen: udp://, tcp://, tcp+tls://, relp://, relp+tls://, unix:// or unixgram://; several with commas
    /// [default: udp and tcp on port 514]
    #[arg(long, env = "LOGFERRY_LISTEN", value_name = "URL", value_delimiter = ',')]
    pub listen: Vec<String>,

    /// Certificate chain (PEM) for every tcp://, tcp+tls:// and relp+tls:// listener
    #[arg(long, env = "LOGFERRY_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<String>,

    /// Private key (PEM) of --tls-cert
    #[arg(long, env = "LOGFERRY_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<String>,

    /// CA (PEM) that must have signed the certificates of TLS senders
    #[arg(long, env = "LOGFERRY_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<String>,

    /// Collector: relp://, relp+tls://, tcp://, tcp+tls:// or udp:// (srv+ in front for SRV records), file:///path or
    /// stdout:; several with commas: the first that answers
    #[arg(long, env = "LOGFERRY_FORWARD", value_name = "URL", value_delimiter = ',')]
    pub forward: Vec<String>,

    /// Output format: rfc5424, rfc3164 or json
    #[arg(long, env = "LOGFERRY_FORMAT", value_name = "FORMAT")]
    pub format: Option<String>,

    /// CA (PEM) that signed the collector's certificate [default: the system's roots]
    #[arg(long, env = "LOGFERRY_CA", value_name = "FILE")]
    pub ca: Option<String>,

    /// Our certificate chain (PEM), when the collector asks for one
    #[arg(long, env = "LOGFERRY_CERT", value_name = "FILE")]
    pub cert: Option<String>,

    /// Private key (PEM) of --cert
    #[arg(long, env = "LOGFERRY_KEY", value_name = "FILE")]
    pub key: Option<String>,

    /// Name in the collector's certificate, when it is not the one in --forward
    #[arg(long, env = "LOGFERRY_SERVER_NAME", value_name = "NAME")]
    pub server_name: Option<String>,

    /// Host name for messages that carry none [default: this machine's]
    #[arg(long, env = "LOGFERRY_HOSTNAME", value_name = "NAME")]
    pub hostname: Option<String>,

    /// Directory of the spool [default: /var/spool/logferry]
    #[arg(long, env = "LOGFERRY_SPOOL_DIR", value_name = "DIR")]
    pub spool_dir: Option<String>,

    /// Most bytes the spool may take [default: 1GiB]
    #[arg(long, env = "LOGFERRY_SPOOL_MAX_SIZE", value_name = "SIZE")]
    pub spool_max_size: Option<String>,

    /// Address of the status page, /status, /metrics, /live and /ready, or `off` [default: 127.0.0.1:9514]
    #[arg(long, env = "LOGFERRY_ADMIN", value_name = "ADDRESS")]
    pub admin: Option<String>,

    /// error, warn, info, debug or trace [default: info]
    #[arg(long, env = "LOGFERRY_LOG", value_name = "LEVEL")]
    pub log: Option<String>,

    /// How that is written: text or json [default: text]
    #[arg(long, env = "LOGFERRY_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<String>,
}

impl Overrides {
    /// The config file: the one that is named, or the one in the usual place if it is there.
    pub fn file(&self) -> Option<&str> {
        // Compose hands an unset variable over as an empty one.
        let named = self.config.as_deref().filter(|path| !path.is_empty());
        named.or_else(|| Path::new(DEFAULT_FILE).exists().then_some(DEFAULT_FILE))
    }

    /// The same for reading it again: a config file that was there and is gone then is an error, not a relay without one.
    pub fn again(self) -> Self {
        Self { config: self.file().map(str::to_owned), ..self }
    }

    /// Lays the flags and variables over what the file says.
    pub(super) fn apply(&self, file: &mut File) {
        let listen = given(&self.listen);
        if !listen.is_empty() {
            let address = |url| Some(Leaf::from_override("--listen / LOGFERRY_LISTEN", url));
            file.listen =
                listen.iter().map(|url| unwritten(Listen { address: address(*url), ..Listen::default() })).collect();
        }
        let forward = given(&self.forward);
        if !forward.is_empty() {
            let to = |url: &&str| Leaf::from_override("--forward / LOGFERRY_FORWARD", *url);
            file.forward =
                vec![unwritten(Forward { to: Leaves(forward.iter().map(to).collect()), ..Forward::default() })];
        }
        if file.forward.is_empty() {
            let written = |text: &str| Leaf::from_override("the default forward", text);
            let to = Leaves(vec![written("stdout:")]);
            file.forward = vec![unwritten(Forward { name: Some(written("stdout")), to, ..Forward::default() })];
        }
        for forward in &mut file.forward {
            set(&mut forward.as_mut().format, "--format / LOGFERRY_FORMAT", &self.format);
        }
        set(&mut file.hostname, "--hostname / LOGFERRY_HOSTNAME", &self.hostname);
        set(&mut file.spool.dir, "--spool-dir / LOGFERRY_SPOOL_DIR", &self.spool_dir);
        set(&mut file.spool.max_size, "--spool-max-size / LOGFERRY_SPOOL_MAX_SIZE", &self.spool_max_size);
        set(&mut file.admin.listen, "--admin / LOGFERRY_ADMIN", &self.admin);
        set(&mut file.log.level, "--log / LOGFERRY_LOG", &self.log);
        set(&mut file.log.format, "--log-format / LOGFERRY_LOG_FORMAT", &self.log_format);
    }

    /// Is there something for TLS listeners among them?
    pub(super) fn names_listener_tls(&self) -> bool {
        any_given([&self.tls_cert, &self.tls_key, &self.tls_client_ca])
    }

    /// Is there something for TLS forwards among them?
    pub(super) fn names_forward_tls(&self) -> bool {
        any_given([&self.ca, &self.cert, &self.key, &self.server_name])
    }

    /// What is about TLS goes to every forward that speaks it.
    pub(super) fn apply_forward_tls(&self, forward: &mut Forward) {
        set(&mut forward.ca, "--ca / LOGFERRY_CA", &self.ca);
        set(&mut forward.cert, "--cert / LOGFERRY_CERT", &self.cert);
        set(&mut forward.key, "--key / LOGFERRY_KEY", &self.key);
        set(&mut forward.server_name, "--server-name / LOGFERRY_SERVER_NAME", &self.server_name);
    }

    /// The TLS files go to every listener that speaks TCP; called when the listeners' addresses are known to be there.
    pub(super) fn apply_listener_tls(&self, listen: &mut Listen) {
        set(&mut listen.cert, "--tls-cert / LOGFERRY_TLS_CERT", &self.tls_cert);
        set(&mut listen.key, "--tls-key / LOGFERRY_TLS_KEY", &self.tls_key);
        set(&mut listen.client_ca, "--tls-client-ca / LOGFERRY_TLS_CLIENT_CA", &self.tls_client_ca);
    }
}

/// Compose hands an unset `${X}` over as an empty variable: that is "not given".
fn given(list: &[String]) -> Vec<&str> {
    list.iter().map(|item| item.trim()).filter(|item| !item.is_empty()).collect()
}

fn any_given<const N: usize>(values: [&Option<String>; N]) -> bool {
    values.into_iter().flatten().any(|value| !value.is_empty())
}

fn set(leaf: &mut Option<Leaf>, flag: &'static str, value: &Option<String>) {
    if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
        *leaf = Some(Leaf::from_override(flag, value.trim()));
    }
}
