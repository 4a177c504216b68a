//! The agent's operator API (behaviour rules 79 and 82): `POST /api/v1`.
//!
//! What is asked is read, and what is answered comes from the read models; nothing here
//! asks the core.

mod answers;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response as HttpResponse},
    routing::any,
};
use mezz_http::{post, set_logging_level, with_below};
use mezz_proto::{
    logging,
    media::Format,
    pages::Version,
    v1::{
        self,
        agent::{Call, Response, call, response},
    },
};
use prost::Message as _;

use self::answers::{executors, frameworks, get_agent, json_text, list_files, no_file, tasks};
use super::{
    PREFIXES, Served,
    pages::{containers, file_refusal, metrics, turn, write},
    refusal::Refusal,
    sandboxes::{self, resolve},
};

/// Calls are small: the largest is the path of a file, in bytes.
const MAX_CALL: usize = 1 << 20;

/// pymesos' operators call `/api/v1/operator`.
pub(super) fn routes(served: Arc<Served>) -> Router {
    let mut routes = Router::new();
    for prefix in PREFIXES {
        routes = with_below(routes, &format!("{prefix}/api/v1"), any(answer));
    }
    routes.with_state(served)
}

async fn answer(State(served): State<Arc<Served>>, request: Request) -> HttpResponse {
    match handle(&served, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

/// In Mesos' order of checks (rules 2 and 79).
async fn handle(served: &Arc<Served>, request: Request) -> Result<HttpResponse, Refusal> {
    let (parts, body, format) = post(request).await?;
    let (call, _room) = served.rooms.operators.read::<Call>(body, format, MAX_CALL).await?;
    validate(&call)
        .map_err(|text| Refusal::bad(format!("Failed to validate agent::Call: {text}")))?;
    let accept = parts.headers.get_all(header::ACCEPT);
    let accept = Format::accepted(accept.iter().map(header::HeaderValue::as_bytes))?;
    if call.r#type() == call::Type::SetLoggingLevel {
        let asked = call.set_logging_level.unwrap_or_default();
        set_logging_level(asked.level, asked.duration.nanoseconds)?;
        return Ok(StatusCode::OK.into_response());
    }
    let turn = turn(served)?;
    // Asked before the page is written, for it waits for containers and engines.
    let used = match call.r#type() {
        call::Type::GetContainers => Some(containers(served).await),
        _ => None,
    };
    let written = write(turn, served, move |served| {
        let response = match used {
            Some(used) => {
                let containers = used.iter().map(|usage| usage.container.clone()).collect();
                Response {
                    get_containers: Some(response::GetContainers { containers }),
                    ..typed(response::Type::GetContainers)
                }
            }
            None => respond(served, &call)?,
        };
        Ok::<_, Refusal>(match accept {
            Format::Protobuf => response.encode_to_vec(),
            Format::Json => json_text(&response).into_bytes(),
        })
    });
    written.await?.transpose()?.answer(accept.name())
}

/// What can be said of a call without looking.
fn validate(call: &Call) -> Result<(), String> {
    use call::Type;
    if call.r#type.is_none() {
        return Err("Expecting 'type' to be present".to_owned());
    }
    let (field, there) = match call.r#type() {
        Type::GetMetrics => ("get_metrics", call.get_metrics.is_some()),
        Type::SetLoggingLevel => ("set_logging_level", call.set_logging_level.is_some()),
        Type::ListFiles => ("list_files", call.list_files.is_some()),
        Type::ReadFile => ("read_file", call.read_file.is_some()),
        _ => return Ok(()),
    };
    if there { Ok(()) } else { Err(format!("Expecting '{field}' to be present")) }
}

fn typed(kind: response::Type) -> Response {
    Response { r#type: Some(kind.into()), ..Response::default() }
}

fn respond(served: &Served, call: &Call) -> Result<Response, Refusal> {
    use call::Type;
    Ok(match call.r#type() {
        Type::GetHealth => Response {
            get_health: Some(response::GetHealth { healthy: true }),
            ..typed(response::Type::GetHealth)
        },
        Type::GetFlags => {
            let flag = |(name, value): (&&str, &String)| v1::Flag {
                name: (*name).to_owned(),
                value: Some(value.clone()),
            };
            let flags = served.about.flags.iter().map(flag).collect();
            Response {
                get_flags: Some(response::GetFlags { flags }),
                ..typed(response::Type::GetFlags)
            }
        }
        Type::GetVersion => Response {
            get_version: Some(response::GetVersion {
                version_info: Version::of_build().to_proto(),
            }),
            ..typed(response::Type::GetVersion)
        },
        Type::GetMetrics => {
            let metric = |(name, value)| v1::Metric { name, value: Some(value) };
            let metrics = metrics(served).into_iter().map(metric).collect();
            Response {
                get_metrics: Some(response::GetMetrics { metrics }),
                ..typed(response::Type::GetMetrics)
            }
        }
        Type::ListFiles => {
            let path = call.list_files.as_ref().map_or("", |list| &list.path);
            Response {
                list_files: Some(response::ListFiles { file_infos: list_files(served, path)? }),
                ..typed(response::Type::ListFiles)
            }
        }
        Type::ReadFile => {
            let asked = call.read_file.clone().unwrap_or_default();
            let place = resolve(served, &asked.path).ok_or_else(no_file)?;
            let read = sandboxes::read(&place, Some(asked.offset), asked.length);
            let sandboxes::Part { size, data } = read.map_err(|error| file_refusal(&error))?;
            Response {
                read_file: Some(response::ReadFile { size, data }),
                ..typed(response::Type::ReadFile)
            }
        }
        Type::GetLoggingLevel => Response {
            get_logging_level: Some(response::GetLoggingLevel { level: logging::verbosity() }),
            ..typed(response::Type::GetLoggingLevel)
        },
        Type::GetState => {
            let all = served.roster.frameworks();
            Response {
                get_state: Some(response::GetState {
                    get_tasks: Some(tasks(&all)),
                    get_executors: Some(executors(&all)),
                    get_frameworks: Some(frameworks(&all)),
                }),
                ..typed(response::Type::GetState)
            }
        }
        Type::GetFrameworks => Response {
            get_frameworks: Some(frameworks(&served.roster.frameworks())),
            ..typed(response::Type::GetFrameworks)
        },
        Type::GetExecutors => Response {
            get_executors: Some(executors(&served.roster.frameworks())),
            ..typed(response::Type::GetExecutors)
        },
        Type::GetTasks => Response {
            get_tasks: Some(tasks(&served.roster.frameworks())),
            ..typed(response::Type::GetTasks)
        },
        Type::GetOperations => Response {
            get_operations: Some(response::GetOperations::default()),
            ..typed(response::Type::GetOperations)
        },
        Type::GetResourceProviders => Response {
            get_resource_providers: Some(response::GetResourceProviders::default()),
            ..typed(response::Type::GetResourceProviders)
        },
        Type::GetAgent => {
            Response { get_agent: Some(get_agent(served)), ..typed(response::Type::GetAgent) }
        }
        other => {
            let text = format!("{} is not supported by this agent", other.as_str_name());
            return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, text));
        }
    })
}
