//! The roles on AWS: a stack made from the deployment's own template in a protocol server, and
//! instances that boot from their user data.

mod boot;
mod closed_loop;
mod doctor;
mod end_to_end;
mod hung;
mod installation;
mod late;
mod local_workers;
mod original;
mod orphan;
mod replicas;
mod spot;
