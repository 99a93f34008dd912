//! API keys: who may ask what of the web tier.
//!
//! A key is `muster_<id>_<secret>`. Of the secret only its SHA-256 is kept: it has 256 random bits,
//! so a slow hash, which is for what people choose, would protect nothing more.

use std::fmt;
use std::str::FromStr;

use anyhow::Context;
use muster_jobs::now_ms;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What every key begins with, so that scanners for leaked secrets know one.
const PREFIX: &str = "muster";
/// Random bytes of a key's id and of its secret.
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// What a key allows.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    clap::ValueEnum,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Scope {
    /// Ask who is in a photograph, and for the results.
    Recognize,
    /// Read and change the people.
    Enroll,
    /// Everything.
    Admin,
}

impl Scope {
    /// The scope as it is written.
    pub fn text(self) -> &'static str {
        self.into()
    }
}

/// A key's public name, 16 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(String);

/// Why a text is not a key or a key's id.
#[derive(Debug, thiserror::Error)]
pub enum MalformedKey {
    /// It is not 16 hexadecimal digits.
    #[error("a key's id is 16 hexadecimal digits: `muster keys list` shows them")]
    Id,
    /// It is not `muster_<id>_<secret>`.
    #[error("a key is muster_<id>_<secret>, as `muster keys create` printed it")]
    Key,
}

impl KeyId {
    /// The id as it stands in the key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyId {
    type Err = MalformedKey;

    fn from_str(text: &str) -> Result<Self, MalformedKey> {
        if is_hex(text, ID_BYTES) {
            Ok(Self(text.to_owned()))
        } else {
            Err(MalformedKey::Id)
        }
    }
}

impl TryFrom<String> for KeyId {
    type Error = MalformedKey;

    fn try_from(text: String) -> Result<Self, MalformedKey> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.0
    }
}

fn is_hex(text: &str, bytes: usize) -> bool {
    let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.len() == 2 * bytes && text.bytes().all(digit)
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes everything");
    }
    text
}

/// A key as its holder sends it.
pub struct Token {
    /// Which key it says to be.
    pub id: KeyId,
    secret: String,
}

impl Token {
    /// A fresh one, of the system's random numbers.
    ///
    /// # Errors
    /// When the system has none.
    pub fn fresh() -> anyhow::Result<Self> {
        let mut id = [0; ID_BYTES];
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut id).context("draw random numbers")?;
        getrandom::fill(&mut secret).context("draw random numbers")?;
        Ok(Self {
            id: KeyId(hex(&id)),
            secret: hex(&secret),
        })
    }

    /// The whole key; shown once, never logged.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}_{}_{}", self.id, self.secret)
    }

    /// What is kept of it: the SHA-256 of its secret, in hexadecimal digits.
    pub fn hash(&self) -> String {
        hex(&Sha256::digest(self.secret.as_bytes()))
    }
}

impl FromStr for Token {
    type Err = MalformedKey;

    fn from_str(text: &str) -> Result<Self, MalformedKey> {
        let mut parts = text.split('_');
        match [parts.next(), parts.next(), parts.next(), parts.next()] {
            [Some(PREFIX), Some(id), Some(secret), None] if is_hex(secret, SECRET_BYTES) => {
                Ok(Self {
                    id: id.parse().map_err(|_| MalformedKey::Key)?,
                    secret: secret.to_owned(),
                })
            }
            _ => Err(MalformedKey::Key),
        }
    }
}

/// A key as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Its public name.
    pub id: KeyId,
    /// What the operator calls it.
    pub name: String,
    /// SHA-256 of the secret's text, in hexadecimal.
    pub secret_sha256: String,
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// Requests a second that it may make in the long run, of each web replica; any number where it
    /// is not set.
    pub rate_per_s: Option<f64>,
    /// Requests that it may make at once before that counts.
    pub burst: Option<u32>,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// From when on it is not taken any more, in milliseconds since the Unix epoch.
    pub expires_at_ms: Option<u64>,
}

impl ApiKey {
    /// Whether the holder of that token has this key, and it has not expired.
    pub fn accepts(&self, token: &Token) -> bool {
        let same = self.secret_sha256.as_bytes().ct_eq(token.hash().as_bytes());
        bool::from(same) && self.id == token.id && !self.expired()
    }

    /// Whether it is past its time.
    pub fn expired(&self) -> bool {
        self.expires_at_ms.is_some_and(|at| at <= now_ms())
    }

    /// Whether it allows what needs that scope.
    pub fn allows(&self, scope: Scope) -> bool {
        self.scopes
            .iter()
            .any(|own| *own == scope || *own == Scope::Admin)
    }

    /// How many requests may come at once: as many as in a second where nothing is set.
    pub fn burst(&self) -> f64 {
        let rate = self.rate_per_s.unwrap_or_default();
        self.burst.map_or(rate.ceil(), f64::from).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(token: &Token, scopes: &[Scope]) -> ApiKey {
        ApiKey {
            id: token.id.clone(),
            name: "door".into(),
            secret_sha256: token.hash(),
            scopes: scopes.to_vec(),
            rate_per_s: None,
            burst: None,
            created_at_ms: 0,
            expires_at_ms: None,
        }
    }

    #[test]
    fn a_key_is_accepted_by_its_secret_alone_and_until_it_expires() {
        let token = Token::fresh().unwrap();
        let sent: Token = token.reveal().parse().unwrap();
        let mut kept = key(&token, &[Scope::Recognize]);
        assert!(kept.accepts(&sent));
        let json = serde_json::to_string(&kept).unwrap();
        assert!(!json.contains(&token.secret), "the secret is not kept");
        let other = Token {
            id: token.id.clone(),
            secret: Token::fresh().unwrap().secret,
        };
        assert!(!kept.accepts(&other));
        kept.expires_at_ms = Some(now_ms());
        assert!(!kept.accepts(&sent));
    }

    #[test]
    fn what_is_not_a_key_is_not_looked_up() {
        let whole = Token::fresh().unwrap().reveal();
        for text in [
            "",
            "muster",
            "muster_1_2",
            &whole[1..],
            &whole[..whole.len() - 1],
            &format!("{whole}_"),
            &whole.to_uppercase(),
            &whole.replace("muster", "master"),
            "muster_../../status_00",
        ] {
            assert!(text.parse::<Token>().is_err(), "{text}");
        }
    }

    #[test]
    fn admin_allows_everything_and_the_others_themselves() {
        let token = Token::fresh().unwrap();
        let all = [Scope::Recognize, Scope::Enroll, Scope::Admin];
        assert!(all.iter().all(|s| key(&token, &[Scope::Admin]).allows(*s)));
        let enroll = key(&token, &[Scope::Enroll]);
        let allowed: Vec<_> = all.iter().map(|scope| enroll.allows(*scope)).collect();
        assert_eq!(allowed, [false, true, false]);
    }
}
