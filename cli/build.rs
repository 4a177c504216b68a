//! How the program is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let of = |name: &str| std::env::var(name).unwrap_or_default();
    // Static builds have start files of their own for that.
    let shared = !of("CARGO_CFG_TARGET_FEATURE").split(',').any(|feature| feature == "crt-static");
    if of("CARGO_CFG_TARGET_OS") == "linux" && of("CARGO_CFG_TARGET_ENV") == "gnu" && shared {
        // At a fixed address. A launcher is this program, one for each container: to move it
        // elsewhere the dynamic linker writes into some 140 pages, which is almost half of the
        // page faults of its start, and memory that each container would have to itself.
        // Libraries, heap and stack are placed at random all the same.
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}
