//! API keys: what they are, and where they are kept.

mod key;
mod store;

pub use key::{ApiKey, KeyId, MalformedKey, Scope, Token};
pub use store::KeyStore;
