//! Work that would hold up the threads that wait for the object store.

/// Does the work on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = tokio::task::spawn_blocking(work).await;
    done.expect("nobody cancels it, and it does not panic")
}
