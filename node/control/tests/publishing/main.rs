//! Publishing: what is accepted, what is refused, and what a client finds whenever it is interrupted.

mod attacks;
mod catch_up;
mod crashes;
mod directorates;
mod fleet;
mod halting;
mod house;
mod judgement;
mod outlook;
mod rotation;
mod uploads;
