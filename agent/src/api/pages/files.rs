//! `/files/browse` and `/files/read` (rule 89).

use std::sync::Arc;

use axum::{
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{
        Served,
        files::{FileError, Listed},
        refusal::Refusal,
        sandboxes::{self, Names, Place, browse, mode_text, read, resolve},
    },
    page,
};

/// What both are asked.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    path: Option<String>,
    offset: Option<String>,
    length: Option<String>,
    jsonp: Option<String>,
}

impl Asked {
    fn place(&self, served: &Served) -> Result<(String, Place), Refusal> {
        let path = self.path.as_deref().filter(|path| !path.is_empty());
        let path = path.ok_or_else(|| Refusal::bad("Expecting 'path=value' in query.\n"))?;
        let place = resolve(served, path).ok_or_else(missing)?;
        Ok((path.to_owned(), place))
    }
}

fn missing() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "")
}

fn number(name: &str, text: Option<&str>) -> Result<Option<i64>, Refusal> {
    let wrong = |_| Refusal::bad(format!("Failed to parse {name}: it is no whole number.\n"));
    text.map(|text| text.parse::<i64>().map_err(wrong)).transpose()
}

/// What an error of a file is over HTTP.
pub(in super::super) fn refusal(error: &FileError) -> Refusal {
    let status = match error {
        FileError::Missing(_) => StatusCode::NOT_FOUND,
        FileError::Io { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        FileError::Outside(_) | FileError::NotAFile(_) | FileError::NotAFolder(_) => {
            StatusCode::BAD_REQUEST
        }
    };
    Refusal::new(status, format!("{error}\n"))
}

pub(super) async fn browse_page(
    State(served): State<Arc<Served>>,
    Query(asked): Query<Asked>,
) -> Response {
    let (path, place) = match asked.place(&served) {
        Ok(place) => place,
        Err(refusal) => return refusal.into_response(),
    };
    let listed = tokio::task::spawn_blocking(move || {
        let mut names = Names::default();
        browse(&path, &place).map(|all| all.iter().map(|one| shown(one, &mut names)).collect())
    });
    answer(&served, asked.jsonp.as_deref(), listed.await).await
}

/// One file or folder, its keys sorted.
fn shown(listed: &Listed, names: &mut Names) -> Value {
    json!({
        "gid": names.group(listed.gid),
        "mode": mode_text(listed.mode),
        "mtime": listed.mtime as f64,
        "nlink": listed.nlink,
        "path": listed.path,
        "size": listed.size,
        "uid": names.user(listed.uid),
    })
}

pub(super) async fn read_page(
    State(served): State<Arc<Served>>,
    Query(asked): Query<Asked>,
) -> Response {
    let bounds = || -> Result<_, Refusal> {
        let offset = number("offset", asked.offset.as_deref())?.unwrap_or(-1);
        let length = number("length", asked.length.as_deref())?.unwrap_or(-1);
        if offset < -1 {
            return Err(Refusal::bad(format!("Negative offset provided: {offset}\n")));
        }
        if length < -1 {
            return Err(Refusal::bad(format!("Negative length provided: {length}\n")));
        }
        let (_, place) = asked.place(&served)?;
        Ok((place, u64::try_from(offset).ok(), u64::try_from(length).ok()))
    };
    let (place, offset, length) = match bounds() {
        Ok(bounds) => bounds,
        Err(refusal) => return refusal.into_response(),
    };
    let part = tokio::task::spawn_blocking(move || {
        let sandboxes::Part { size, data } = read(&place, offset, length)?;
        let data = String::from_utf8_lossy(&data);
        // Without an offset it tells where the end is.
        Ok(json!({ "data": data, "offset": offset.map_or(size, |offset| offset.min(size)) }))
    });
    answer(&served, asked.jsonp.as_deref(), part.await).await
}

async fn answer(
    served: &Arc<Served>,
    jsonp: Option<&str>,
    done: Result<Result<Value, FileError>, tokio::task::JoinError>,
) -> Response {
    match done {
        Ok(Ok(value)) => page(served, jsonp, move |_| value.to_string()).await,
        Ok(Err(error)) => refusal(&error).into_response(),
        Err(_) => Refusal::stopping().into_response(),
    }
}
