//! Compiles the `.proto` files below `proto/` to Rust, without protoc.

use std::{env, fs, path::PathBuf};

const FILES: &[&str] = &[
    "mesos/v1/mesos.proto",
    "mesos/v1/agent/agent.proto",
    "mesos/v1/allocator/allocator.proto",
    "mesos/v1/executor/executor.proto",
    "mesos/v1/maintenance/maintenance.proto",
    "mesos/v1/master/master.proto",
    "mesos/v1/quota/quota.proto",
    "mesos/v1/resource_provider/resource_provider.proto",
    "mesos/v1/scheduler/scheduler.proto",
    "mezz/v1/agent.proto",
    "mezz/v1/agent_link.proto",
    "mezz/v1/executor.proto",
    "mezz/v1/operator.proto",
    "mezz/v1/registry.proto",
    "mezz/v1/scheduler.proto",
];

const BOXED: &[&str] = include!("boxed.rs");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=boxed.rs");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // The JSON dialect and the required-field checks read descriptors at run time.
    fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
    let mut config = prost_build::Config::new();
    // `prost::Name` ties each type to its descriptor.
    config.enable_type_names();
    // Sorted maps, so that the same message has the same bytes and the same text
    // every time: the cores are deterministic.
    config.btree_map(["."]);
    for field in BOXED {
        config.boxed(field);
    }
    tonic_prost_build::configure()
        // Its `connect` would clash with that of AgentLink.
        .build_transport(false)
        .codec_path("crate::codec::LeanCodec")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}
