//! The gallery as a whole: how well it tells people apart, and the model that it is matched by.

pub mod examination;
pub mod model_change;
