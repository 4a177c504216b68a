//! How the program is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // At a fixed address. A launcher is this program, one for each container: what the
    // dynamic linker would write into it to move it elsewhere, some 160 pages, cost each task
    // a third of its launcher's processor time, and each container that memory. Libraries,
    // heap and stack are placed at random all the same.
    println!("cargo:rustc-link-arg-bins=-no-pie");
}
