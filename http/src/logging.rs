//! SET_LOGGING_LEVEL, which master and agent take (behaviour rules 80 and 82).

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::http::StatusCode;
use mezz_proto::logging;
use tokio::task::AbortHandle;

use crate::{Refusal, limits::MAX_LOGGING_TIME};

/// What takes back the last change; there is one log in a process.
static LAST_REVERT: Mutex<Option<AbortHandle>> = Mutex::new(None);

/// Changes how much is logged, for so many nanoseconds. The last change of all holds, until
/// its own end.
///
/// # Errors
/// 400 for a time that is not above zero or longer than [`MAX_LOGGING_TIME`], 501 where the
/// log cannot be changed.
pub fn set_logging_level(level: u32, nanoseconds: i64) -> Result<(), Refusal> {
    let lasts = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or_default());
    if lasts.is_zero() || lasts > MAX_LOGGING_TIME {
        return Err(Refusal::bad(format!(
            "set_logging_level.duration: must be more than 0 and at most {} s",
            MAX_LOGGING_TIME.as_secs()
        )));
    }
    // Held over both: of two changes at a time the later one's end must be the one that waits.
    let mut last = LAST_REVERT.lock().unwrap_or_else(PoisonError::into_inner);
    let change = logging::set(level).ok_or_else(|| {
        Refusal::new(StatusCode::NOT_IMPLEMENTED, "this program's log cannot be changed")
    })?;
    tracing::info!(level, ?lasts, "an operator has set the logging level");
    let reverts = tokio::spawn(async move {
        tokio::time::sleep(lasts).await;
        change.revert();
    });
    // One waits at a time: the change before ends with this one.
    if let Some(before) = last.replace(reverts.abort_handle()) {
        before.abort();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl logging::LogControl for Nothing {
        fn set(&self, _: u32) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_level_holds_for_a_while_and_one_end_waits() {
        let second = 1_000_000_000;
        let unable = set_logging_level(1, second).unwrap_err();
        assert_eq!(unable.status(), StatusCode::NOT_IMPLEMENTED);
        logging::install(Box::new(Nothing));
        for wrong in [0, -1, 8 * 24 * 3600 * second] {
            let error = set_logging_level(1, wrong).unwrap_err();
            assert_eq!(error.status(), StatusCode::BAD_REQUEST, "{wrong}");
        }
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        for _ in 0..1_000 {
            set_logging_level(2, 3600 * second).unwrap();
            tokio::task::yield_now().await;
        }
        assert!(tasks() < 10, "{}", tasks());
        set_logging_level(1, 5 * second).unwrap();
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(logging::verbosity(), 1);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(logging::verbosity(), 0);
    }
}
