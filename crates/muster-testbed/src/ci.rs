//! What `CI` means to every test.

/// Whether this is continuous integration, `CI=true`: there a test fails for what it needs and is not
/// installed, elsewhere it is skipped.
pub fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|ci| ci == "true")
}
