//! Large answers: made off the async threads, few at a time, and one for all who wait for
//! the same.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use thiserror::Error;
use tokio::{
    sync::{Mutex, Semaphore},
    time::{Instant, timeout_at},
};

use crate::{
    api::delivery::UnreadRoom,
    shell::limits::{
        ANSWER_WAIT, BIG_ANSWER_QUEUE, BIG_ANSWERS, UNREAD_ANSWERS_KIB, UNREAD_QUICK_KIB,
    },
};

/// Why there is no answer. Status 503.
#[derive(Clone, Debug, Error)]
pub enum NoPage {
    /// Too many wait, or too much is made and not read.
    #[error("too many requests wait for large answers; try again in a moment")]
    Busy,
    /// The core does not tell its counters; zeros would be taken for them.
    #[error("the master's core does not answer; it is overloaded, try again")]
    Silent,
    /// The thread that made it failed.
    #[error("the answer could not be made: {0}")]
    Failed(String),
}

/// How many are made, and how many wait.
#[derive(Clone, Debug)]
pub struct Answers {
    places: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    room: UnreadRoom,
}

/// One of those who wait.
#[derive(Debug)]
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Answers {
    /// For large ones.
    pub fn new() -> Self {
        Self::of(BIG_ANSWERS, UNREAD_ANSWERS_KIB)
    }

    /// For those without tasks: they stand behind no large ones, neither while they are made
    /// nor while they are read.
    pub fn quick() -> Self {
        Self::of(1, UNREAD_QUICK_KIB)
    }

    fn of(places: usize, room: u32) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            waiting: Arc::default(),
            room: UnreadRoom::of(room),
        }
    }

    /// Makes one that is sent; it counts as long as anybody holds it.
    ///
    /// # Errors
    /// [`NoPage`].
    pub async fn page(
        &self,
        make: impl FnOnce() -> Vec<u8> + Send + 'static,
    ) -> Result<Bytes, NoPage> {
        self.make(self.held(make)).await?
    }

    /// Makes and takes room for it.
    fn held(
        &self,
        make: impl FnOnce() -> Vec<u8> + Send + 'static,
    ) -> impl FnOnce() -> Result<Bytes, NoPage> + Send + 'static {
        let room = self.room.clone();
        move || room.hold(make()).ok_or(NoPage::Busy)
    }

    /// Makes something, when it is its turn.
    ///
    /// # Errors
    /// [`NoPage`].
    pub async fn make<T: Send + 'static>(
        &self,
        make: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NoPage> {
        self.make_by(Instant::now() + ANSWER_WAIT, make).await
    }

    /// Its turn must come by then.
    async fn make_by<T: Send + 'static>(
        &self,
        by: Instant,
        make: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NoPage> {
        let _waits = Waits::new(&self.waiting);
        if self.waiting.load(Ordering::Relaxed) > BIG_ANSWER_QUEUE {
            return Err(NoPage::Busy);
        }
        let place = timeout_at(by, self.places.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(NoPage::Busy) };
        let made = tokio::task::spawn_blocking(move || {
            // Held to the end, also when nobody waits for it any more.
            let _place = place;
            make()
        });
        made.await.map_err(|e| NoPage::Failed(e.to_string()))
    }
}

/// When a page was begun, and what came of it.
type Made = (Instant, Result<Bytes, NoPage>);

/// One page that many ask for. Who comes while it is made waits for the next one, and
/// shares that with all who came meanwhile: nobody gets what was made before it asked, and
/// of a hundred pollers two are worked for. That it could not be made is shared, too.
#[derive(Debug, Default)]
pub struct Shared {
    latest: Mutex<Option<Made>>,
    waiting: AtomicUsize,
}

/// One of those who wait for a page. The last one leaves nothing behind, also if it gives
/// up.
struct WaitsFor<'a>(&'a Shared);

impl Drop for WaitsFor<'_> {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Ordering::SeqCst) == 1
            // Who has the lock has come since, and is the last one then.
            && let Ok(mut latest) = self.0.latest.try_lock()
        {
            *latest = None;
        }
    }
}

impl Shared {
    /// The page.
    ///
    /// # Errors
    /// [`NoPage`].
    pub async fn get(
        &self,
        answers: &Answers,
        make: impl FnOnce() -> Vec<u8> + Send + 'static,
    ) -> Result<Bytes, NoPage> {
        let make = answers.held(make);
        self.share(|by| answers.make_by(by, move || (Instant::now(), make()))).await
    }

    /// The page, made of what `first` finds out; that is asked for once for all who share.
    ///
    /// # Errors
    /// [`NoPage`], also that of `first`.
    pub async fn get_after<T: Send + 'static>(
        &self,
        answers: &Answers,
        first: impl Future<Output = Result<T, NoPage>>,
        make: impl FnOnce(T) -> Vec<u8> + Send + 'static,
    ) -> Result<Bytes, NoPage> {
        self.share(|by| async move {
            let begun = Instant::now();
            let found = match first.await {
                Ok(found) => found,
                Err(error) => return Ok((begun, Err(error))),
            };
            let make = answers.held(move || make(found));
            Ok((begun, answers.make_by(by, make).await?))
        })
        .await
    }

    /// `make` is told by when its turn must come. That it did not is not shared: others have
    /// longer to wait.
    async fn share<F: Future<Output = Result<Made, NoPage>>>(
        &self,
        make: impl FnOnce(Instant) -> F,
    ) -> Result<Bytes, NoPage> {
        let asked = Instant::now();
        let by = asked + ANSWER_WAIT;
        // Declared before the lock, so given up after it.
        let _waits = WaitsFor(self);
        if self.waiting.fetch_add(1, Ordering::SeqCst) >= BIG_ANSWER_QUEUE {
            return Err(NoPage::Busy);
        }
        let Ok(mut latest) = timeout_at(by, self.latest.lock()).await else {
            return Err(NoPage::Busy);
        };
        // One that is too old is let go before a new one needs its room.
        let fresh = latest.take().filter(|(begun, _)| *begun >= asked);
        let made = match fresh {
            Some(made) => made,
            None => make(by).await?,
        };
        *latest = Some(made.clone());
        made.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is small does not stand behind what is large.
    #[tokio::test]
    async fn quick_answers_have_a_place_of_their_own() {
        let answers = Answers::new();
        let quick = Answers::quick();
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(std::sync::Mutex::new(gate));
        let large: Vec<_> = (0..BIG_ANSWERS)
            .map(|_| {
                let (answers, gate) = (answers.clone(), gate.clone());
                tokio::spawn(async move { answers.make(move || gate.lock().unwrap().recv()).await })
            })
            .collect();
        while answers.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(quick.make(|| 1).await.unwrap(), 1);
        drop(go);
        for large in large {
            large.await.unwrap().unwrap().unwrap_err();
        }
    }

    /// All but the first share what is made after they asked.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_waits_for_the_same_shares_it() {
        let (answers, shared) = (Answers::new(), Arc::new(Shared::default()));
        let made = Arc::new(AtomicUsize::new(0));
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(std::sync::Mutex::new(gate));
        let ask = || {
            let (answers, shared, made) = (answers.clone(), shared.clone(), made.clone());
            let gate = gate.clone();
            tokio::spawn(async move {
                let make = move || {
                    gate.lock().unwrap().recv().unwrap();
                    made.fetch_add(1, Ordering::Relaxed).to_string().into_bytes()
                };
                shared.get(&answers, make).await.unwrap()
            })
        };
        let asked: Vec<_> = (0..50).map(|_| ask()).collect();
        while shared.waiting.load(Ordering::Relaxed) < 50 {
            tokio::task::yield_now().await;
        }
        go.send(()).unwrap();
        go.send(()).unwrap();
        for asked in asked {
            asked.await.unwrap();
        }
        // The first was begun before some of the others asked, or after all of them.
        let times = made.load(Ordering::Relaxed);
        assert!((1..=2).contains(&times), "{times}");
        assert!(shared.latest.lock().await.is_none(), "nothing is kept that nobody waits for");
        // Later it is made anew.
        let later = ask();
        go.send(()).unwrap();
        assert_eq!(&later.await.unwrap()[..], times.to_string().as_bytes());
    }

    /// However many stand before it.
    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_it_is_told() {
        let (answers, shared) = (Answers::new(), Arc::new(Shared::default()));
        let _all = answers.places.clone().acquire_many_owned(BIG_ANSWERS as u32).await.unwrap();
        let begun = Instant::now();
        let asked: Vec<_> = (0..100)
            .map(|_| {
                let (answers, shared) = (answers.clone(), shared.clone());
                tokio::spawn(async move { shared.get(&answers, Vec::new).await })
            })
            .collect();
        for asked in asked {
            assert!(matches!(asked.await.unwrap(), Err(NoPage::Busy)));
        }
        assert!(begun.elapsed() < ANSWER_WAIT * 2, "{:?}", begun.elapsed());
    }

    /// A page for which there is no room is made for all who wait, not for each.
    #[tokio::test]
    async fn a_failure_is_shared_and_forgotten() {
        let (answers, shared) = (Answers::of(1, 20), Arc::new(Shared::default()));
        let _held = answers.room.hold(vec![0; 18 << 10]).unwrap();
        let place = answers.places.clone().acquire_owned().await.unwrap();
        let made = Arc::new(AtomicUsize::new(0));
        let ask = || {
            let (answers, shared, made) = (answers.clone(), shared.clone(), made.clone());
            tokio::spawn(async move {
                let make = move || {
                    made.fetch_add(1, Ordering::Relaxed);
                    vec![0; 18 << 10]
                };
                shared.get(&answers, make).await
            })
        };
        let asked: Vec<_> = (0..50).map(|_| ask()).collect();
        while shared.waiting.load(Ordering::Relaxed) < 50 {
            tokio::task::yield_now().await;
        }
        drop(place);
        for asked in asked {
            assert!(matches!(asked.await.unwrap(), Err(NoPage::Busy)));
        }
        assert_eq!(made.load(Ordering::Relaxed), 1);
        assert!(shared.latest.lock().await.is_none());
    }

    /// Those who waited for it have hung up.
    #[tokio::test]
    async fn a_page_that_nobody_takes_is_not_kept() {
        let (answers, shared) = (Answers::new(), Arc::new(Shared::default()));
        let place = answers.places.clone().acquire_many_owned(BIG_ANSWERS as u32).await.unwrap();
        let ask = || {
            let (answers, shared) = (answers.clone(), shared.clone());
            tokio::spawn(async move { shared.get(&answers, Vec::new).await })
        };
        let first = ask();
        while shared.waiting.load(Ordering::Relaxed) < 1 {
            tokio::task::yield_now().await;
        }
        let others = [ask(), ask()];
        while shared.waiting.load(Ordering::Relaxed) < 3 {
            tokio::task::yield_now().await;
        }
        drop(place);
        first.await.unwrap().unwrap();
        for other in others {
            other.abort();
            // Aborted, or just served.
            let _ = other.await;
        }
        assert!(shared.latest.lock().await.is_none());
    }
}
