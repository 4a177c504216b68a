//! The pages that tools of Mesos read and the forms that they post (rules 83 to 90), each
//! at `/x` and `/master/x`. Answered from the read model.

mod agents;
pub mod answers;
mod forms;
mod frameworks;
mod roles;
mod snapshot;
mod state;
mod summary;
mod tasks;

use std::{collections::HashMap, sync::Arc};

use axum::{
    Router,
    extract::{Query, Request, State},
    http::{HeaderValue, StatusCode, Uri, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{MethodRouter, any, get},
};
use mezz_http::with_below;
use mezz_proto::{
    media::JSON,
    pages::{Jsonp, Version},
};
use serde::Serialize;

use self::answers::{Answers, NoPage, Shared};
pub use self::{
    roles::roles,
    snapshot::{all_metrics, standby_metrics},
    state::List,
};
use super::{
    delivery,
    refusal::Refusal,
    server::{Api, Identity},
};
use crate::shell::snapshot::{Include, Snapshot};

/// Tasks on a page of `/tasks`, where the request does not say (rule 87).
const DEFAULT_TASKS: usize = 100;

/// What the pages are made from, and the answers that several share.
#[derive(Debug)]
pub struct Pages {
    /// What they are made from.
    pub api: Arc<Api>,
    /// The makers of large answers.
    pub answers: Answers,
    /// The makers of those without tasks.
    pub quick: Answers,
    state: Shared,
    summary: Shared,
    slaves: Shared,
    frameworks: Shared,
    roles: Shared,
    metrics: Shared,
    /// `/metrics`, for Prometheus.
    pub prometheus: Shared,
    /// GET_STATE of the operator API, in JSON.
    pub get_state: Shared,
}

impl Pages {
    /// Of this master.
    pub fn new(api: Arc<Api>) -> Arc<Self> {
        Arc::new(Self {
            api,
            answers: Answers::new(),
            quick: Answers::quick(),
            state: Shared::default(),
            summary: Shared::default(),
            slaves: Shared::default(),
            frameworks: Shared::default(),
            roles: Shared::default(),
            metrics: Shared::default(),
            prometheus: Shared::default(),
            get_state: Shared::default(),
        })
    }

    /// Who makes an answer of so much.
    pub fn answers_for(&self, include: Include) -> &Answers {
        if include == Include::NONE { &self.quick } else { &self.answers }
    }

    /// One page, made of a snapshot; shared where a slot is given.
    async fn page(
        &self,
        slot: Option<&Shared>,
        include: Include,
        jsonp: Option<Jsonp>,
        write: impl FnOnce(&Api, &Snapshot) -> Vec<u8> + Send + 'static,
    ) -> Response {
        let api = self.api.clone();
        let make = move || write(&api, &api.model.snapshot(include));
        let made = match slot {
            Some(slot) => slot.get(self.answers_for(include), make).await,
            None => self.answers_for(include).page(make).await,
        };
        match made {
            Ok(page) => json(page, jsonp.as_ref()),
            Err(error) => unavailable(&error),
        }
    }
}

/// What is answered, or why not.
type Page = Result<Response, Refusal>;

/// The query of a request. What cannot be read is none: Mesos ignores it, too.
type Arguments = HashMap<String, String>;

fn arguments(uri: &Uri) -> Arguments {
    Query::try_from_uri(uri).map(|Query(all)| all).unwrap_or_default()
}

fn callback(arguments: &Arguments) -> Result<Option<Jsonp>, Refusal> {
    match arguments.get("jsonp").map(|name| Jsonp::new(name)) {
        None => Ok(None),
        Some(Ok(callback)) => Ok(Some(callback)),
        Some(Err(error)) => Err(Refusal::bad(error.to_string())),
    }
}

/// A page in JSON, or as a script.
fn json(page: bytes::Bytes, jsonp: Option<&Jsonp>) -> Response {
    let mut response = match jsonp {
        None => delivery::response(JSON, vec![page]),
        Some(callback) => {
            let [before, after] = callback.around();
            delivery::response(Jsonp::CONTENT_TYPE, vec![before.into(), page, after.into()])
        }
    };
    // Texts of tasks stand in it, which no browser shall take for a page.
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// A small page.
fn small(page: &impl Serialize, arguments: &Arguments) -> Response {
    match callback(arguments) {
        Ok(jsonp) => json(written(page).into(), jsonp.as_ref()),
        Err(refused) => refused.into_response(),
    }
}

/// What the operator is told in words.
pub fn text(status: StatusCode, text: impl Into<String>) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text.into()).into_response()
}

/// There is no answer now.
pub fn unavailable(error: &NoPage) -> Response {
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, error.to_string());
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Never fails: keys are text, and numbers are finite or text.
fn written(page: &impl Serialize) -> Vec<u8> {
    mezz_proto::pages::escaped(serde_json::to_vec(page).unwrap_or_default())
}

/// The pages' routes.
pub fn routes(pages: Arc<Pages>) -> Router {
    let table: [(&str, MethodRouter<Arc<Pages>>); 21] = [
        ("/state", get(state)),
        ("/state.json", get(state)),
        ("/state-summary", get(summary)),
        ("/slaves", get(slaves)),
        ("/frameworks", get(frameworks)),
        ("/tasks", get(tasks)),
        ("/tasks.json", get(tasks)),
        ("/roles", get(roles_page)),
        ("/roles.json", get(roles_page)),
        ("/flags", get(flags)),
        ("/weights", get(forms::weights).put(forms::put_weights)),
        ("/quota", get(forms::nothing).fallback(forms::not_implemented)),
        ("/maintenance/schedule", get(forms::nothing).fallback(forms::not_implemented)),
        ("/maintenance/status", get(forms::nothing)),
        ("/machine/up", any(forms::not_implemented_post)),
        ("/machine/down", any(forms::not_implemented_post)),
        ("/reserve", any(forms::not_implemented_post)),
        ("/unreserve", any(forms::not_implemented_post)),
        ("/create-volumes", any(forms::not_implemented_post)),
        ("/destroy-volumes", any(forms::not_implemented_post)),
        ("/teardown", any(forms::teardown)),
    ];
    let mut router = Router::new();
    for (path, method) in table {
        router = with_below(router, path, method.clone());
        router = with_below(router, &format!("/master{path}"), method);
    }
    for form in ["", ".json"] {
        for path in ["/files/browse", "/files/read", "/files/download"] {
            router = with_below(router, &format!("{path}{form}"), get(forms::no_file));
        }
        let path = format!("/metrics/snapshot{form}");
        router = with_below(router, &path, get(snapshot::metrics_snapshot));
    }
    router.layer(from_fn(same_site)).with_state(pages)
}

/// Lets no page of another site change anything: a browser posts a form without asking
/// first. Clients that are no browsers say nothing of their origin.
async fn same_site(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let said = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let here = said("host").or_else(|| request.uri().authority().map(|a| a.as_str()));
    let origin = said("origin").map(|origin| origin.split_once("://").map_or("?", |(_, at)| at));
    let elsewhere = origin.is_some_and(|origin| here != Some(origin))
        || said("sec-fetch-site") == Some("cross-site");
    if elsewhere && !request.method().is_safe() {
        return text(StatusCode::FORBIDDEN, "another site's page may change nothing here");
    }
    next.run(request).await
}

async fn state(State(pages): State<Arc<Pages>>, uri: Uri) -> Page {
    let jsonp = callback(&arguments(&uri))?;
    Ok(pages
        .page(Some(&pages.state), Include::ALL, jsonp, |api, snapshot| {
            let elected = api.elected.as_secs_f64();
            written(&state::StatePage { identity: &api.identity, elected, snapshot })
        })
        .await)
}

async fn summary(State(pages): State<Arc<Pages>>, uri: Uri) -> Page {
    let jsonp = callback(&arguments(&uri))?;
    let include = Include { tasks: true, ..Include::NONE };
    Ok(pages
        .page(Some(&pages.summary), include, jsonp, |api, snapshot| {
            written(&summary::SummaryPage { identity: &api.identity, snapshot })
        })
        .await)
}

async fn slaves(State(pages): State<Arc<Pages>>, uri: Uri) -> Page {
    let arguments = arguments(&uri);
    let jsonp = callback(&arguments)?;
    let only = arguments.get("slave_id").cloned();
    let slot = only.is_none().then_some(&pages.slaves);
    Ok(pages
        .page(slot, Include::NONE, jsonp, move |_, snapshot| {
            written(&agents::SlavesPage { snapshot, only: only.as_deref() })
        })
        .await)
}

async fn frameworks(State(pages): State<Arc<Pages>>, uri: Uri) -> Page {
    let arguments = arguments(&uri);
    let jsonp = callback(&arguments)?;
    let only = arguments.get("framework_id").cloned();
    let slot = only.is_none().then_some(&pages.frameworks);
    Ok(pages
        .page(slot, Include::ALL, jsonp, move |_, snapshot| {
            written(&frameworks::FrameworksPage { snapshot, only: only.as_deref() })
        })
        .await)
}

async fn tasks(State(pages): State<Arc<Pages>>, uri: Uri) -> Page {
    let arguments = arguments(&uri);
    let jsonp = callback(&arguments)?;
    let number = |name: &str, default| match arguments.get(name) {
        None => Ok(default),
        Some(given) => given.parse().map_err(|_| {
            let given: String = given.chars().take(40).collect();
            Refusal::bad(format!(
                "{name}: `{given}` is no number; it must be whole and not below 0"
            ))
        }),
    };
    let query = tasks::TasksQuery {
        limit: number("limit", DEFAULT_TASKS)?,
        offset: number("offset", 0)?,
        ascending: arguments.get("order").is_some_and(|order| order == "asc"),
        framework: arguments.get("framework_id").cloned(),
        task: arguments.get("task_id").cloned(),
    };
    let include = Include { tasks: true, ..Include::NONE };
    Ok(pages
        .page(None, include, jsonp, move |_, snapshot| {
            written(&tasks::TasksPage { snapshot, query: &query })
        })
        .await)
}

async fn roles_page(State(pages): State<Arc<Pages>>, uri: Uri) -> Page {
    let jsonp = callback(&arguments(&uri))?;
    Ok(pages
        .page(Some(&pages.roles), Include::NONE, jsonp, |_, snapshot| {
            written(&roles::RolesPage(snapshot))
        })
        .await)
}

async fn flags(State(pages): State<Arc<Pages>>, uri: Uri) -> Response {
    flags_page(&pages.api.identity, &uri)
}

/// `/flags`, the same at leaders and standbys.
pub fn flags_page(identity: &Identity, uri: &Uri) -> Response {
    #[derive(Serialize)]
    struct Flags<'a> {
        flags: &'a std::collections::BTreeMap<String, String>,
    }
    small(&Flags { flags: &identity.flags }, &arguments(uri))
}

/// `/version`: what Mesos says, and what we said before.
pub fn version_page(identity: &Identity, uri: &Uri) -> Response {
    let mut page = serde_json::to_value(Version::of_build()).unwrap_or_default();
    let ours = serde_json::json!({
        "name": "mezz",
        "build": if cfg!(debug_assertions) { "debug" } else { "release" },
        "target": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        "master_id": identity.id,
        "start_time": identity.clock.start_time().as_secs_f64(),
    });
    if let (Some(page), serde_json::Value::Object(ours)) = (page.as_object_mut(), ours) {
        page.extend(ours);
    }
    small(&page, &arguments(uri))
}
