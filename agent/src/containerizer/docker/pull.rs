//! Images: looking for them, and fetching them once for all that want them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bollard::{
    auth::DockerCredentials, models::CreateImageInfo, query_parameters::CreateImageOptionsBuilder,
};
use futures_util::StreamExt as _;
use tokio::sync::watch;

use super::{credentials, engine::Engine};

/// A pull that makes no progress for so long is given up.
const STALL: Duration = Duration::from_secs(300);

/// Between two lines of the log about one pull.
const REPORT_EVERY: Duration = Duration::from_secs(10);

const MIB: f64 = 1_048_576.0;

/// How a pull ended; nothing while it goes on.
type Outcome = Option<Result<(), String>>;

/// All pulls that go on.
pub(super) struct Pulls {
    engine: Arc<Engine>,
    config: Option<PathBuf>,
    under_way: Mutex<BTreeMap<String, watch::Receiver<Outcome>>>,
}

impl Pulls {
    pub(super) fn new(engine: Arc<Engine>, config: Option<PathBuf>) -> Arc<Self> {
        Arc::new(Self { engine, config, under_way: Mutex::default() })
    }

    /// Has the engine fetch an image, if it is not there or `force` is set.
    ///
    /// # Errors
    /// A sentence with the image's name and the engine's reason.
    pub(super) async fn ensure(self: &Arc<Self>, image: &str, force: bool) -> Result<(), String> {
        if !force {
            match self.engine.call(|link| async move { link.inspect_image(image).await }).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        let mut outcome = self.join(image);
        let ended = outcome.wait_for(Option::is_some).await;
        match ended.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            _ => Err(format!("the pull of {image} was cut short")),
        }
    }

    /// The pull of an image that goes on, or a new one.
    fn join(self: &Arc<Self>, image: &str) -> watch::Receiver<Outcome> {
        let mut under_way = self.under_way();
        if let Some(outcome) = under_way.get(image) {
            return outcome.clone();
        }
        let (sender, receiver) = watch::channel(None);
        under_way.insert(image.to_owned(), receiver.clone());
        let (pulls, image) = (Arc::clone(self), image.to_owned());
        tokio::spawn(async move {
            let outcome = pulls.pull(&image).await;
            pulls.under_way().remove(&image);
            sender.send_replace(Some(outcome));
        });
        receiver
    }

    fn under_way(&self) -> MutexGuard<'_, BTreeMap<String, watch::Receiver<Outcome>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pull(&self, image: &str) -> Result<(), String> {
        let failed = |why: String| Err(format!("cannot pull image `{image}`: {why}"));
        let credentials = match self.credentials(image).await {
            Ok(credentials) => credentials,
            Err(why) => return failed(why),
        };
        let link = match self.engine.link().await {
            Ok(link) => link.with_timeout(STALL),
            Err(error) => return failed(error.to_string()),
        };
        tracing::info!(image, "pulling an image");
        let options = CreateImageOptionsBuilder::new().from_image(image).build();
        let mut news = link.create_image(Some(options), None, credentials);
        let mut progress = Progress::new(image);
        loop {
            match tokio::time::timeout(STALL, news.next()).await {
                Err(_) => return failed(format!("no progress for {STALL:?}")),
                Ok(Some(Err(error))) => return failed(self.engine.explain(error).to_string()),
                Ok(Some(Ok(news))) => progress.hear(&news),
                Ok(None) => break,
            }
        }
        // A broken connection ends the answer too.
        match self.engine.call(|link| async move { link.inspect_image(image).await }).await {
            Ok(_) => {
                let took = progress.since.elapsed();
                tracing::info!(image, ?took, "pulled an image");
                Ok(())
            }
            Err(error) => failed(error.to_string()),
        }
    }

    async fn credentials(&self, image: &str) -> Result<Option<DockerCredentials>, String> {
        let Some(file) = self.config.clone() else { return Ok(None) };
        let image = image.to_owned();
        tokio::task::spawn_blocking(move || credentials::find(&file, &image))
            .await
            .unwrap_or_else(|error| Err(error.to_string()))
    }
}

/// What is known of a pull, for the log.
struct Progress<'a> {
    image: &'a str,
    since: Instant,
    reported: Instant,
    /// By layer: bytes fetched, and all.
    layers: BTreeMap<String, (i64, i64)>,
    done: BTreeSet<String>,
}

impl<'a> Progress<'a> {
    fn new(image: &'a str) -> Self {
        let now = Instant::now();
        let (layers, done) = Default::default();
        Self { image, since: now, reported: now, layers, done }
    }

    fn hear(&mut self, news: &CreateImageInfo) {
        let status = news.status.as_deref().unwrap_or_default();
        let Some(layer) = &news.id else {
            tracing::info!(image = self.image, "{status}");
            return;
        };
        if status == "Downloading"
            && let Some(detail) = &news.progress_detail
            && let (Some(current), Some(total)) = (detail.current, detail.total)
        {
            self.layers.insert(layer.clone(), (current, total));
        }
        if ["Pull complete", "Already exists"].contains(&status) {
            self.done.insert(layer.clone());
        }
        if self.reported.elapsed() >= REPORT_EVERY {
            self.reported = Instant::now();
            let (fetched, all) = self.layers.values().fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
            tracing::info!(
                image = self.image,
                layers_done = self.done.len(),
                "fetched {:.1} of {:.1} MiB so far known",
                fetched as f64 / MIB,
                all as f64 / MIB
            );
        }
    }
}
