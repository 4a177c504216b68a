//! The Mezz agent: a pure core that decides, and a shell that runs containers,
//! keeps state on disk and speaks with the master and with executors.

pub mod containerizer;
pub mod options;
