pub mod frame;
pub mod intake;
#[cfg(test)]
mod tests;
