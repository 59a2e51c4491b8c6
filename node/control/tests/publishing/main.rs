//! Publishing: what is accepted, what is refused, and what a client finds whenever it is interrupted.

mod attacks;
mod crashes;
mod house;
mod rotation;
