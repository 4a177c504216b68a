//! The whole master over loopback, with real gRPC and HTTP clients.

mod common;
mod life;
mod operator;
mod protocol;
mod restart;
