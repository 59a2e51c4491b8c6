//! Tells xtask the platform it was built for, which only build scripts know.

fn main() {
    let target = std::env::var("TARGET").expect("cargo says the platform to build scripts");
    println!("cargo::rustc-env=HOST={target}");
    println!("cargo::rerun-if-changed=build.rs");
}
