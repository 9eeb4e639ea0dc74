//! The address of a listener, as a sender writes it.

use std::str::FromStr;

use super::{Destination, ListenAddress, ListenTransport, Scheme, Transport, bad_scheme, split_scheme, target};
use crate::protocol::session::Protocol;

/// The address of a listener as senders write it. Unlike in the config, the host may be a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReachedListener {
    Network { protocol: Protocol, transport: Transport, to: Destination },
    Unix(ListenAddress),
}

impl FromStr for ReachedListener {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = split_scheme(text, ListenAddress::schemes)?;
        if let Some((found, protocol)) = Scheme::named(&scheme).and_then(|found| Some((found, found.listen?))) {
            let to = target(text, rest, found.port)?;
            return Ok(Self::Network { protocol, transport: found.transport, to });
        }
        let address: ListenAddress = text.parse()?;
        match address.transport() {
            ListenTransport::Unix(_) | ListenTransport::Unixgram(_) => Ok(Self::Unix(address)),
            _ => Err(bad_scheme(text, &scheme, ListenAddress::schemes)),
        }
    }
}
