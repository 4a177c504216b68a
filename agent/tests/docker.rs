//! Containers of a real Docker engine, with an image that `scripts/docker.sh` makes.
//! The tests fail where there is none; they are of no use then.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod cluster;
mod support;

#[path = "docker/engine.rs"]
mod engine;
#[path = "docker/fixture.rs"]
mod fixture;
#[path = "docker/inside.rs"]
mod inside;
#[path = "docker/life.rs"]
mod life;
#[path = "docker/proxy.rs"]
mod proxy;
#[path = "docker/pull.rs"]
mod pull;
#[path = "docker/restart.rs"]
mod restart;
#[path = "docker/whole.rs"]
mod whole;
