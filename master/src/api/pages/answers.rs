//! Large answers: made off the async threads, few at a time, and one for all who wait for
//! the same.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use thiserror::Error;
use tokio::{
    sync::{Mutex, Semaphore},
    time::timeout,
};

use crate::{
    api::delivery::UnreadRoom,
    shell::limits::{ANSWER_WAIT, BIG_ANSWER_QUEUE, BIG_ANSWERS},
};

/// Why there is no answer. Status 503.
#[derive(Debug, Error)]
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
    /// None yet.
    pub fn new() -> Self {
        Self {
            places: Arc::new(Semaphore::new(BIG_ANSWERS)),
            waiting: Arc::default(),
            room: UnreadRoom::new(),
        }
    }

    /// A place of its own for answers without tasks, which do not stand behind large ones.
    pub fn beside(&self) -> Self {
        Self {
            places: Arc::new(Semaphore::new(1)),
            waiting: Arc::default(),
            room: self.room.clone(),
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
    pub fn held(
        &self,
        make: impl FnOnce() -> Vec<u8> + Send + 'static,
    ) -> impl FnOnce() -> Result<Bytes, NoPage> + Send + 'static {
        let room = self.room.clone();
        move || {
            if room.is_full() {
                return Err(NoPage::Busy);
            }
            room.hold(make()).ok_or(NoPage::Busy)
        }
    }

    /// Makes something, when it is its turn.
    ///
    /// # Errors
    /// [`NoPage`].
    pub async fn make<T: Send + 'static>(
        &self,
        make: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NoPage> {
        let _waits = Waits::new(&self.waiting);
        if self.waiting.load(Ordering::Relaxed) > BIG_ANSWER_QUEUE {
            return Err(NoPage::Busy);
        }
        let place = timeout(ANSWER_WAIT, self.places.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(NoPage::Busy) };
        let made = tokio::task::spawn_blocking(move || {
            // Held to the end, also when nobody waits for it any more.
            let _place = place;
            make()
        });
        made.await.map_err(|e| NoPage::Failed(e.to_string()))
    }
}

/// One page that many ask for. Who comes while it is made waits for the next one, and
/// shares that with all who came meanwhile: nobody gets what was made before it asked, and
/// of a hundred pollers two are worked for.
#[derive(Debug, Default)]
pub struct Shared {
    latest: Mutex<Option<(Instant, Bytes)>>,
    waiting: AtomicUsize,
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
        let asked = Instant::now();
        let waits = Waits::new(&self.waiting);
        if self.waiting.load(Ordering::Relaxed) > BIG_ANSWER_QUEUE {
            return Err(NoPage::Busy);
        }
        let mut latest = self.latest.lock().await;
        let (begun, page) = match latest.take() {
            Some((begun, page)) if begun >= asked => (begun, page),
            _ => {
                let make = answers.held(make);
                let (begun, page) = answers.make(move || (Instant::now(), make())).await?;
                (begun, page?)
            }
        };
        // Counted out while the lock is held: the last one keeps nothing.
        drop(waits);
        if self.waiting.load(Ordering::Relaxed) > 0 {
            *latest = Some((begun, page.clone()));
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is small does not stand behind what is large.
    #[tokio::test]
    async fn quick_answers_have_a_place_of_their_own() {
        let answers = Answers::new();
        let quick = answers.beside();
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
}
