//! The whole master over loopback, with real gRPC and HTTP clients.

mod common;
mod http;
mod life;
mod operator;
mod operator_http;
mod pages;
mod protocol;
mod restart;
mod scheduler_client;
mod scheduler_http;
mod scheduler_stream;
