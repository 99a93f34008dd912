//! The connections that there are, by who has them, so that no client keeps the others out.
//!
//! A client may have half of the connections. Where it wants more, or where all are taken, the connection
//! that has gone longest without a request is cut: of that client's own, or of the client that has most. One
//! whose request is being answered is never cut for another.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// In [`Place::idle_since`]: a request is being answered.
const BUSY: u64 = u64::MAX;

/// All connections. Cheap to clone.
#[derive(Clone)]
pub struct Connections {
    inner: Arc<Inner>,
}

struct Inner {
    most: usize,
    share: usize,
    taken: Mutex<Taken>,
    /// Numbers connections and the moments since which they are idle.
    clock: AtomicU64,
    ended: Notify,
}

#[derive(Default)]
struct Taken {
    total: usize,
    of: HashMap<IpAddr, BTreeMap<u64, Arc<Place>>>,
}

/// What is known of one connection.
struct Place {
    idle_since: AtomicU64,
    cut: CancellationToken,
}

/// Whether there is room for a connection.
pub enum Room {
    /// There is.
    Here(Connection),
    /// Its client has its share, each with a request that is being answered.
    ShareTaken,
    /// Every connection has a request that is being answered.
    Full,
}

/// One connection. Makes room when it is dropped.
pub struct Connection {
    all: Connections,
    client: IpAddr,
    id: u64,
    place: Arc<Place>,
}

impl Connections {
    /// Room for so many.
    pub fn new(most: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                most,
                share: most.div_ceil(2),
                taken: Mutex::default(),
                clock: AtomicU64::new(0),
                ended: Notify::new(),
            }),
        }
    }

    /// Takes room for a connection from that address, if need be another's.
    pub fn take(&self, address: IpAddr) -> Room {
        let client = client(address);
        let mut taken = self.taken();
        let own = taken.of.get(&client).map_or(0, BTreeMap::len);
        if own >= self.inner.share {
            if !taken.cut_idle_of(client) {
                return Room::ShareTaken;
            }
        } else if taken.total >= self.inner.most && !taken.cut_idle() {
            return Room::Full;
        }
        let id = self.tick();
        let place = Arc::new(Place {
            idle_since: AtomicU64::new(id),
            cut: CancellationToken::new(),
        });
        taken.total += 1;
        let of_client = taken.of.entry(client).or_default();
        of_client.insert(id, Arc::clone(&place));
        Room::Here(Connection {
            all: self.clone(),
            client,
            id,
            place,
        })
    }

    /// Cuts a connection without a request, of the client that has most, if there is one.
    pub fn cut_idle(&self) -> bool {
        self.taken().cut_idle()
    }

    /// Waits until one ends.
    pub async fn one_ended(&self) {
        self.inner.ended.notified().await;
    }

    fn tick(&self) -> u64 {
        self.inner.clock.fetch_add(1, Ordering::Relaxed)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        let taken = self.inner.taken.lock();
        taken.expect("no code panics while it holds these")
    }
}

impl Taken {
    fn cut_idle(&mut self) -> bool {
        let mut clients: Vec<(usize, IpAddr)> = (self.of.iter())
            .map(|(client, own)| (own.len(), *client))
            .collect();
        clients.sort_unstable_by(|a, b| b.cmp(a));
        clients
            .into_iter()
            .any(|(_, client)| self.cut_idle_of(client))
    }

    fn cut_idle_of(&mut self, client: IpAddr) -> bool {
        let Some(own) = self.of.get(&client) else {
            return false;
        };
        let idle = own.iter().filter_map(|(id, place)| {
            let since = place.idle_since.load(Ordering::Relaxed);
            (since != BUSY).then_some((since, *id))
        });
        let Some((_, id)) = idle.min() else {
            return false;
        };
        if let Some(place) = self.remove(client, id) {
            place.cut.cancel();
        }
        true
    }

    fn remove(&mut self, client: IpAddr, id: u64) -> Option<Arc<Place>> {
        let own = self.of.get_mut(&client)?;
        let place = own.remove(&id)?;
        if own.is_empty() {
            self.of.remove(&client);
        }
        self.total -= 1;
        Some(place)
    }
}

impl Connection {
    /// Ends when the connection has to make room.
    pub fn cut(&self) -> CancellationToken {
        self.place.cut.clone()
    }

    /// Marks the connections of a client that holds one.
    pub fn marker(&self) -> Marker {
        Marker {
            all: self.all.clone(),
            place: Arc::clone(&self.place),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // One that was cut is gone already.
        self.all.taken().remove(self.client, self.id);
        self.all.inner.ended.notify_one();
    }
}

/// Says when a request of a connection is being answered.
#[derive(Clone)]
pub struct Marker {
    all: Connections,
    place: Arc<Place>,
}

impl Marker {
    /// From now on, until what is returned is dropped.
    pub fn busy(&self) -> Busy {
        self.place.idle_since.store(BUSY, Ordering::Relaxed);
        Busy(self.clone())
    }
}

/// A request that is being answered.
pub struct Busy(Marker);

impl Drop for Busy {
    fn drop(&mut self) {
        let now = self.0.all.tick();
        self.0.place.idle_since.store(now, Ordering::Relaxed);
        // Whoever waits for room finds one to cut.
        self.0.all.inner.ended.notify_one();
    }
}

/// Whose connection it is: an address, or a network that providers give to one customer.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(room: Room) -> Connection {
        match room {
            Room::Here(connection) => connection,
            Room::ShareTaken => panic!("its share is taken"),
            Room::Full => panic!("all are taken"),
        }
    }

    #[test]
    fn the_longest_idle_of_who_has_most_makes_room() {
        let [one, two, three] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|a| a.parse().unwrap());
        let all = Connections::new(4);
        let first = here(all.take(one));
        let second = here(all.take(one));
        // It was asked something after the second.
        drop(first.marker().busy());
        let third = here(all.take(one));
        assert!(second.cut().is_cancelled());
        assert!(!first.cut().is_cancelled() && !third.cut().is_cancelled());
        let _others = [here(all.take(two)), here(all.take(three))];
        let busy = [first.marker().busy(), third.marker().busy()];
        assert!(matches!(all.take(one), Room::ShareTaken));
        // Those of the others are idle.
        let fourth = here(all.take(two));
        let _busy = fourth.marker().busy();
        assert!(all.cut_idle());
        assert!(!all.cut_idle());
        drop(busy);
        here(all.take(three));
        drop((first, second, third, fourth));
        assert_eq!(all.taken().of.len(), 0);
        assert_eq!(all.taken().total, 0);
    }

    #[test]
    fn a_network_of_version_6_is_one_client() {
        let of = |text: &str| client(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
