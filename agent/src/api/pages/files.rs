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
    page_at, turn,
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
    let browsed = async {
        let (path, place) = asked.place(&served)?;
        let text = move |_: &Served| {
            let mut names = Names::default();
            let all = browse(&path, &place).map_err(|error| refusal(&error))?;
            let all: Vec<Value> = all.iter().map(|one| shown(one, &mut names)).collect();
            Ok(json!(all).to_string())
        };
        page_at(turn(&served)?, &served, asked.jsonp.as_deref(), text).await
    };
    browsed.await.unwrap_or_else(IntoResponse::into_response)
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
    let read = async {
        let (place, offset, length) = bounds()?;
        let text = move |_: &Served| {
            let part = read(&place, offset, length).map_err(|error| refusal(&error))?;
            let sandboxes::Part { size, mut data } = part;
            // Without an offset it tells where the end is.
            let offset = offset.map_or(size, |offset| offset.min(size));
            if offset + (data.len() as u64) < size {
                data.truncate(whole_characters(&data));
            }
            let data = String::from_utf8_lossy(&data);
            Ok(json!({ "data": data, "offset": offset }).to_string())
        };
        page_at(turn(&served)?, &served, asked.jsonp.as_deref(), text).await
    };
    read.await.unwrap_or_else(IntoResponse::into_response)
}

/// How many bytes are left without a character at the end that is cut off: who reads on
/// behind them gets all of it. All, if there would be none.
fn whole_characters(data: &[u8]) -> usize {
    for (back, byte) in data.iter().rev().take(3).enumerate() {
        let needed = match byte {
            0x80..=0xBF => continue,
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => 1,
        };
        let start = data.len() - (back + 1);
        return if needed > back + 1 && start > 0 { start } else { data.len() };
    }
    data.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_end_with_whole_characters() {
        for (data, expected) in [
            (&b""[..], 0),
            (b"ab", 2),
            ("aé".as_bytes(), 3),
            (b"a\xc3", 1),
            (b"a\xe2\x82", 1),
            (b"a\xe2\x82\xac", 4),
            (b"ab\xf0\x9f\x98", 2),
            (b"\xf0\x9f\x98\x80", 4),
            (b"\xe2\x82", 2),
            (b"a\xff", 2),
            (b"a\x80\x80\x80\x80", 5),
        ] {
            assert_eq!(whole_characters(data), expected, "{data:?}");
        }
    }
}
