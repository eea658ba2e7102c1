fn main() {
    println!("{}", pgmig::version());
}
