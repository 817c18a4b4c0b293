//! The portal's process.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::tls::{Authority, GOOD};
use super::{Appliance, wait_until};

/// The portal's process; it ends with the test.
pub struct Portal {
    pub address: SocketAddr,
    /// The root of its certificate, PEM.
    pub root: PathBuf,
    process: Child,
}

impl Portal {
    /// Its address as browsers write it.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    pub fn start(appliance: &Appliance) -> Self {
        let home = appliance.home();
        let authority = Authority::new("portal");
        let root = home.join("portal-root.pem");
        fs::write(&root, authority.pem()).unwrap();
        let pair = authority.sign_for("localhost", GOOD);
        fs::write(home.join("portal.pem"), pair.chain).unwrap();
        fs::write(home.join("portal.key"), pair.key).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_callvault-portal"));
        command.args(["--listen", &address.to_string()]);
        command.arg("--certificate").arg(home.join("portal.pem")).arg("--key").arg(home.join("portal.key"));
        command.arg("--daemon").arg(socket(appliance));
        let log = File::create(home.join("portal.log")).unwrap();
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        wait_until("the portal to listen", || TcpStream::connect(address).is_ok());
        Self { address, root, process }
    }
}

impl Drop for Portal {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where the daemon waits for it, for `portal.socket`.
pub fn socket(appliance: &Appliance) -> PathBuf {
    appliance.runtime().join("portal")
}
