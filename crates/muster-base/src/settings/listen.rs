//! The address that the web tier listens on, as it is written: by number or by name.

use std::net::{SocketAddr, ToSocketAddrs};

use serde::{Deserialize, Deserializer, de};

/// Why a text is no address to listen on.
#[derive(Debug, thiserror::Error)]
pub enum NoAddress {
    /// It has another form.
    #[error("{0} is no address to listen on: write ADDRESS:PORT, such as 127.0.0.1:8000")]
    Form(String),
    /// No address has that name.
    #[error("{name} is not known here: write an address, such as 127.0.0.1:8000")]
    Name {
        /// What was looked up.
        name: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// The address of `127.0.0.1:8000` or `localhost:8000`.
///
/// A name that has several is taken for its first of IPv4: `localhost` is where the commands look for
/// Muster.
///
/// # Errors
/// [`NoAddress`].
pub fn listen_address(text: &str) -> Result<SocketAddr, NoAddress> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let host_and_port = text.rsplit_once(':');
    let named = host_and_port.filter(|(host, port)| {
        !host.is_empty() && !host.contains([':', '/']) && port.parse::<u16>().is_ok()
    });
    if named.is_none() {
        return Err(NoAddress::Form(text.to_owned()));
    }
    let unknown = |source| NoAddress::Name {
        name: text.to_owned(),
        source,
    };
    let found: Vec<SocketAddr> = text.to_socket_addrs().map_err(unknown)?.collect();
    let first = found.iter().find(|address| address.is_ipv4());
    first
        .or(found.first())
        .copied()
        .ok_or_else(|| NoAddress::Form(text.to_owned()))
}

/// Reads an address as [`listen_address`] does.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    listen_address(&text).map_err(|error| match error {
        NoAddress::Name { source, .. } => de::Error::custom(format!("{text}: {source}")),
        error => de::Error::custom(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_number_or_a_name() {
        for (text, address) in [
            ("127.0.0.1:8000", "127.0.0.1:8000"),
            ("[::1]:80", "[::1]:80"),
            ("localhost:8000", "127.0.0.1:8000"),
        ] {
            assert_eq!(listen_address(text).unwrap(), address.parse().unwrap());
        }
        for text in [
            "",
            "8000",
            ":8000",
            "localhost",
            "localhost:http",
            "http://localhost:1",
            "::1",
        ] {
            let error = listen_address(text).unwrap_err();
            assert!(
                error.to_string().contains("ADDRESS:PORT"),
                "{text}: {error}"
            );
        }
    }
}
