//! A request's place in hand.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::DropGuard;

use super::slot::{Occupied, Slot};

/// A request's place in hand, held until it is answered.
pub struct Place {
    permit: OwnedSemaphorePermit,
    _occupied: Occupied,
    /// Of a request that is alone in hand: says that others may come again, when it is dropped.
    alone: Option<DropGuard>,
}

impl Place {
    /// One of several places.
    pub fn new(permit: OwnedSemaphorePermit, slot: &Arc<Slot>) -> Self {
        Self {
            permit,
            _occupied: slot.in_hand(),
            alone: None,
        }
    }

    /// All places, once nobody else has one. `others` is dropped when others may have them again.
    ///
    /// # Panics
    /// If the places were closed, which nobody does.
    pub async fn alone(
        places: Arc<Semaphore>,
        all: u32,
        others: DropGuard,
        slot: Arc<Slot>,
    ) -> Self {
        let permit = places.acquire_many_owned(all).await;
        Self {
            permit: permit.expect("the places are never closed"),
            _occupied: slot.in_hand(),
            alone: Some(others),
        }
    }

    /// Keeps one place, and leaves the others to whoever comes.
    pub fn let_others_in(&mut self) {
        if self.alone.take().is_some() {
            drop(self.permit.split(self.permit.num_permits() - 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[tokio::test]
    async fn one_is_alone_once_the_others_have_gone_and_until_it_lets_them_in() {
        let places = Arc::new(Semaphore::new(3));
        let slot = Slot::new(3);
        let other = Place::new(Arc::clone(&places).acquire_owned().await.unwrap(), &slot);
        let others = CancellationToken::new();
        let mut alone = Box::pin(Place::alone(
            Arc::clone(&places),
            3,
            others.clone().drop_guard(),
            slot,
        ));
        assert!(
            alone.as_mut().now_or_never().is_none(),
            "another is in hand"
        );
        drop(other);
        let mut alone = alone.await;
        assert_eq!(places.available_permits(), 0);
        assert!(!others.is_cancelled());
        alone.let_others_in();
        assert!(others.is_cancelled());
        assert_eq!(places.available_permits(), 2);
        drop(alone);
        assert_eq!(places.available_permits(), 3);
    }
}
