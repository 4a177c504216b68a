//! A master's `/health`, asked again and again while it is under load.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(10);

/// Longer than any answer should take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks in a thread of its own, until it is told to stop: the load generator's tasks
/// must not delay the question.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Seen>>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Seen {
    /// When the master first said that it decides.
    pub leads: Option<Instant>,
    /// The longest that an answer took from then on.
    pub slowest: Duration,
    /// Answers from then on.
    pub answers: usize,
    /// Answers from then on that were no `ok`, or none at all.
    pub failures: usize,
}

impl Watch {
    /// Begins to ask.
    pub fn start(address: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (address, told) = (address.to_owned(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            while !told.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let ok = matches!(ask(&address).as_deref(), Ok("ok"));
                if ok {
                    seen.leads.get_or_insert_with(Instant::now);
                }
                if seen.leads.is_some() {
                    seen.answers += 1;
                    seen.failures += usize::from(!ok);
                    seen.slowest = seen.slowest.max(asked.elapsed());
                }
                std::thread::sleep(PAUSE);
            }
            seen
        });
        Self { stop, thread: Some(thread) }
    }

    /// Stops to ask.
    pub fn end(mut self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { bail!("it has ended") };
        thread.join().ok().context("the thread that asks for /health has failed")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Waits until `/health` begins with this.
pub async fn wait_until(address: &str, what: &'static str) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let address = address.to_owned();
        let said = tokio::task::spawn_blocking(move || ask(&address)).await?;
        if said.as_deref().is_ok_and(|said| said.starts_with(what)) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "/health is {said:?}, not `{what}`, after {PATIENCE:?}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// The body of the answer.
fn ask(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /health HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    Ok(body.trim().to_owned())
}
