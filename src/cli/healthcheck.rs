//! `residuum healthcheck`: asks a running server whether it is ready.

use std::{net::SocketAddr, time::Duration};

/// Sends one request, so that a container image without curl can have a health check.
pub(super) fn healthcheck(listen: SocketAddr) -> Result<(), String> {
    use std::{
        io::{Read, Write},
        net::{IpAddr, Ipv4Addr, TcpStream},
    };
    let ip = if listen.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { listen.ip() };
    let address = SocketAddr::new(ip, listen.port());
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(String::from_utf8_lossy(&head).into_owned())
    };
    match ask() {
        Ok(head) if head.ends_with(" 200") => Ok(()),
        Ok(head) => Err(format!("{address} is not ready: {head}")),
        Err(e) => Err(format!("{address} does not answer: {e}")),
    }
}
