//! What a request meets: the leader's services, or a standby that says who leads.

use std::{future::ready, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request, http::Response, response::IntoResponse};
use futures_util::{FutureExt, future::BoxFuture};
use mezz_http::{is_at, is_grpc};
use mezz_proto::{
    LEADER_KEY, TRIED_KEY,
    codec::LeanCodec,
    mezz::v1::{GetMasterRequest, GetMasterResponse},
};
use rand::RngExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, codegen::Service, server::UnaryService};

use super::{
    door::Door,
    http::standby_prometheus,
    pages::{answers::Answers, flags_page, standby_metrics, version_page},
    redirect::to_leader,
    server::Identity,
};
use crate::shell::{
    limits::{HELD_AT_ONCE, LONGEST_HELD},
    metrics::Metrics,
};

/// A stream that is asked for while no leader is known waits so long for one: all who
/// wait for a leader hear of it when it is there, rather than asking again and again.
/// With [`HOLD_SPREAD`] less than clients wait for an answer.
const HOLD: Duration = Duration::from_secs(4);

/// Each waits for up to so much of its time more, by chance: those who came together do
/// not come together again.
const HOLD_SPREAD: f64 = 0.5;

/// The streams that wait.
const STREAMS: [&str; 2] = ["/mezz.v1.Scheduler/Subscribe", "/mezz.v1.AgentLink/Connect"];

#[derive(Clone, Debug)]
enum Role {
    Leads(Router, Arc<Doors>),
    /// With the leader's address, when there is one.
    StandsBy(Option<String>),
}

impl Role {
    /// Whether this can be told to one who failed at `tried`.
    fn is_news(&self, tried: Option<&str>) -> bool {
        match self {
            Self::Leads(..) => true,
            Self::StandsBy(leader) => leader.is_some() && leader.as_deref() != tried,
        }
    }
}

/// Lets those in who waited for this master to lead, as fast as their streams begin: tens of
/// thousands that come in the same instant would keep everything else from running.
#[derive(Debug)]
struct Doors {
    /// How many may come at the same time to each of [`STREAMS`].
    places: [Arc<Semaphore>; STREAMS.len()],
}

impl Doors {
    fn open() -> Arc<Self> {
        Arc::new(Self { places: STREAMS.map(|_| Arc::new(Semaphore::new(HELD_AT_ONCE))) })
    }

    /// Waits for a place among those who waited for the same, first come, first served. There
    /// may be none in time.
    async fn pass(&self, stream: usize, by: Instant) -> Option<Place> {
        let place = self.places.get(stream)?.clone().acquire_owned();
        timeout_at(by, place).await.ok()?.ok().map(Place::new)
    }
}

/// The place of a stream, among the extensions of its request. The stream keeps it until the
/// core has its first message: that is the work for which so many may come.
#[derive(Clone, Debug)]
pub(super) struct Place {
    _place: Arc<OwnedSemaphorePermit>,
}

impl Place {
    pub fn new(place: OwnedSemaphorePermit) -> Self {
        Self { _place: Arc::new(place) }
    }
}

/// One for a process, from its start to its end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Front {
    role: Arc<watch::Sender<Role>>,
    identity: Arc<Identity>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    door: Door,
    hold: Duration,
    /// The makers of what standbys tell.
    answers: Answers,
}

impl Front {
    /// A standby. Nothing waits any more once `stop` is cancelled. It has the same door when
    /// it leads.
    pub fn new(
        identity: Arc<Identity>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
        door: Door,
    ) -> Self {
        let role = Arc::new(watch::Sender::new(Role::StandsBy(None)));
        Self { role, identity, metrics, stop, door, hold: HOLD, answers: Answers::quick() }
    }

    /// From now on this router answers.
    pub fn lead(&self, router: Router) {
        self.role.send_replace(Role::Leads(router, Doors::open()));
    }

    /// From now on everybody is sent to the leader.
    pub fn stand_by(&self, leader: Option<String>) {
        self.role.send_if_modified(|role| {
            if matches!(role, Role::StandsBy(known) if *known == leader) {
                return false;
            }
            *role = Role::StandsBy(leader);
            true
        });
    }

    /// Answers everything.
    pub fn router(self) -> Router {
        Router::new().fallback(move |request: Request| self.answer(request))
    }

    /// Each kind of answer takes the memory that it needs and no more: tens of thousands of
    /// streams wait for a leader at the same time.
    fn answer(&self, mut request: Request) -> BoxFuture<'static, Response<Body>> {
        if let Err(refusal) = self.door.pass(&mut request) {
            return Box::pin(ready(refusal));
        }
        let role = self.role.borrow().clone();
        match role {
            Role::Leads(router, _) => led(router, request),
            Role::StandsBy(leader) if is_grpc(request.headers()) => self.grpc(leader, request),
            Role::StandsBy(_)
                if ["/metrics/snapshot", "/metrics/snapshot.json"]
                    .into_iter()
                    .any(|page| is_at(request.uri().path(), page)) =>
            {
                let front = self.clone();
                Box::pin(async move {
                    let Self { answers, metrics, identity, .. } = front;
                    standby_metrics(&answers, metrics, identity, request.uri()).await
                })
            }
            Role::StandsBy(leader) if request.uri().path() == "/metrics" => {
                let front = self.clone();
                Box::pin(async move {
                    let Self { answers, metrics, identity, .. } = front;
                    standby_prometheus(&answers, metrics, identity, leader.is_some()).await
                })
            }
            Role::StandsBy(leader) => Box::pin(ready(self.page(leader.as_deref(), &request))),
        }
    }

    fn grpc(&self, leader: Option<String>, request: Request) -> BoxFuture<'static, Response<Body>> {
        let path = request.uri().path();
        if path == "/mezz.v1.Operator/GetMaster" {
            let front = self.clone();
            return Box::pin(async move { front.get_master(leader, request).await });
        }
        let Some(stream) = STREAMS.iter().position(|stream| *stream == path) else {
            return Box::pin(ready(not_leading(leader.as_deref())));
        };
        Box::pin(self.held(stream, request))
    }

    /// A stream that waits for a leader.
    fn held(
        &self,
        stream: usize,
        mut request: Request,
    ) -> impl Future<Output = Response<Body>> + use<> {
        let came = Instant::now();
        let hold = self.hold.mul_f64(1.0 + HOLD_SPREAD * rand::rng().random::<f64>());
        let (mut roles, stop) = (self.role.subscribe(), self.stop.clone());
        async move {
            let tried = request.headers().get(TRIED_KEY).and_then(|v| v.to_str().ok());
            let news =
                async { roles.wait_for(|role| role.is_news(tried)).await.map(|r| r.clone()) };
            let news = stop.run_until_cancelled(timeout(hold, news)).await;
            let role = match news {
                Some(Ok(Ok(role))) => role,
                // Not where it failed before: that one may be off, and each attempt is slow
                // then. It comes there by its list, should that one lead still.
                _ => Role::StandsBy(None),
            };
            match role {
                Role::Leads(router, doors) => {
                    if let Some(place) = doors.pass(stream, came + LONGEST_HELD).await {
                        request.extensions_mut().insert(place);
                    }
                    led(router, request).await
                }
                Role::StandsBy(leader) => not_leading(leader.as_deref()),
            }
        }
    }

    /// The one request of operators that every master answers: it is how they find
    /// the leader.
    async fn get_master(&self, leader: Option<String>, request: Request) -> Response<Body> {
        let answer = GetMasterResponse {
            id: self.identity.id.clone(),
            address: self.identity.address.clone(),
            leader,
            version: self.identity.version.to_owned(),
            start_time: self.identity.clock.start_time().as_secs_f64(),
            ..Default::default()
        };
        let codec = LeanCodec::<GetMasterResponse, GetMasterRequest>::default();
        let answered = tonic::server::Grpc::new(codec).unary(Always(answer), request).await;
        answered.map(Body::new)
    }

    fn page(&self, leader: Option<&str>, request: &Request) -> Response<Body> {
        let known = leader.unwrap_or("not known");
        let path = request.uri().path();
        match path.strip_prefix("/master").unwrap_or(path) {
            page if is_at(page, "/health") => {
                format!("standby; the leader is {known}\n").into_response()
            }
            "/version" | "/version/" => version_page(&self.identity, request.uri()),
            page if is_at(page, "/flags") => flags_page(&self.identity, request.uri()),
            _ if path == "/" => format!(
                "Mezz master {} at {}, a standby; the leader is {known}\n\n\
                 Here are /health, /version, /flags, /metrics and /metrics/snapshot; all else is the leader's.\n",
                self.identity.version, self.identity.address,
            )
            .into_response(),
            _ => to_leader(leader, request),
        }
    }
}

/// The leader's answer.
fn led(mut router: Router, request: Request) -> BoxFuture<'static, Response<Body>> {
    Box::pin(router.call(request).map(|answer| match answer {
        Ok(response) => response,
        Err(never) => match never {},
    }))
}

/// For gRPC clients.
fn not_leading(leader: Option<&str>) -> Response<Body> {
    let mut status = match leader {
        Some(leader) => Status::unavailable(format!("this master does not lead; {leader} does")),
        None => Status::unavailable("this master does not lead, and knows of no other yet"),
    };
    if let Ok(value) = leader.unwrap_or_default().parse() {
        status.metadata_mut().insert(LEADER_KEY, value);
    }
    status.into_http()
}

/// Answers every request with the same.
struct Always<T>(T);

impl<T: Clone> UnaryService<GetMasterRequest> for Always<T> {
    type Response = T;
    type Future = std::future::Ready<Result<tonic::Response<T>, Status>>;

    fn call(&mut self, _: tonic::Request<GetMasterRequest>) -> Self::Future {
        std::future::ready(Ok(tonic::Response::new(self.0.clone())))
    }
}

#[cfg(test)]
#[path = "front_tests.rs"]
mod tests;
