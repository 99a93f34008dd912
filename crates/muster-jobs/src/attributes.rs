//! What a message carries beside its body.

use std::collections::BTreeMap;

/// A message's attributes, by name.
pub type Attributes = BTreeMap<String, String>;
