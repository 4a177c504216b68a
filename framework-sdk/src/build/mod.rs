//! Builders for frameworks, tasks and executors.

mod command;
mod executor;
mod framework;
mod task;

use std::time::Duration;

use mezz_proto::v1;

pub use command::CommandBuilder;
pub use executor::ExecutorBuilder;
pub use framework::FrameworkBuilder;
pub use task::{TaskBuilder, TaskError};

/// Saturates at the largest duration of the wire, 292 years.
fn duration_info(duration: Duration) -> v1::DurationInfo {
    v1::DurationInfo { nanoseconds: i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX) }
}

fn label(key: String, value: String) -> v1::Label {
    v1::Label { key, value: Some(value) }
}
