//! What is known of an embedder before anybody is enrolled.

/// What is shipped of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShippedCalibration {
    /// The published cutoff: none is below it.
    pub cutoff: f32,
    /// How alike the faces of different people are.
    pub impostors: Option<ShippedImpostors>,
}

/// A normal distribution of the similarities of different people's faces.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShippedImpostors {
    /// Its mean.
    pub mean: f32,
    /// Its standard deviation.
    pub deviation: f32,
    /// How many people it was measured on.
    pub people: u32,
}
