//! System calls made by a process that lives, instead of its own next one: so it is its filter, its Landlock domain, its namespaces and
//! its user that answer, and nothing that was put up for the test.

use std::ffi::CString;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr::null_mut;

use nix::errno::Errno;
use nix::libc::{self, c_long, c_void, user_regs_struct};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Below the stack by so much is what nobody uses: further than the 128 bytes that a function may use without saying so.
const BELOW_STACK: u64 = 4_096;

/// Most bytes of a call's texts.
const TEXT_MAX: usize = 1_024;

/// What a call is told: a number, or a text or bytes that end with a zero and whose address it is told.
pub enum Argument<'a> {
    Number(i64),
    Path(&'a Path),
    Bytes(&'a [u8]),
}

/// The main thread of a process, stopped between two of its instructions until this is dropped; then it goes on where it was.
pub struct Stopped {
    process: Pid,
    memory: File,
    registers: user_regs_struct,
}

impl Stopped {
    /// Stops it in a system call, where a process that waits for work is. The caller is root.
    pub fn at(process: u32) -> Self {
        let process = Pid::from_raw(process.cast_signed());
        loop {
            request(libc::PTRACE_ATTACH, process, 0);
            assert!(matches!(waitpid(process, None).unwrap(), WaitStatus::Stopped(..)));
            let memory = File::options().read(true).write(true).open(format!("/proc/{process}/mem")).unwrap();
            let registers = registers(process);
            let mut before = [0; 2];
            if memory.read_exact_at(&mut before, registers.rip - 2).is_ok() && before == [0x0f, 0x05] {
                return Self { process, memory, registers };
            }
            request(libc::PTRACE_DETACH, process, 0);
        }
    }

    /// Makes the process make this call; what the kernel answered.
    pub fn call(&self, number: c_long, arguments: &[Argument<'_>]) -> Result<u64, Errno> {
        let below = self.registers.rsp - BELOW_STACK;
        let mut kept = [0; TEXT_MAX];
        self.memory.read_exact_at(&mut kept, below).unwrap();
        let mut values = [0_u64; 6];
        let mut used = 0;
        for (value, argument) in values.iter_mut().zip(arguments) {
            let bytes = match argument {
                Argument::Number(number) => {
                    *value = number.cast_unsigned();
                    continue;
                }
                Argument::Path(path) => CString::new(path.to_str().unwrap()).unwrap().into_bytes_with_nul(),
                Argument::Bytes(bytes) => bytes.to_vec(),
            };
            assert!(used + bytes.len() <= TEXT_MAX);
            self.memory.write_all_at(&bytes, below + used as u64).unwrap();
            *value = below + used as u64;
            used += bytes.len();
        }
        let mut changed = self.registers;
        changed.rip -= 2;
        changed.rax = number.cast_unsigned();
        // Or the kernel would begin the call again that was interrupted.
        changed.orig_rax = u64::MAX;
        [changed.rdi, changed.rsi, changed.rdx, changed.r10, changed.r8, changed.r9] = values;
        set_registers(self.process, &changed);
        request(libc::PTRACE_SINGLESTEP, self.process, 0);
        let status = waitpid(self.process, None).unwrap();
        assert!(matches!(status, WaitStatus::Stopped(..)), "the call was the end of the process: {status:?}");
        let answer = registers(self.process).rax.cast_signed();
        // A program that was started has other memory.
        let _ = self.memory.write_all_at(&kept, below);
        if answer < 0 { Err(Errno::from_raw(i32::try_from(-answer).unwrap())) } else { Ok(answer.cast_unsigned()) }
    }

    /// Ends it, also where there is nothing to go back to: a call has started another program.
    pub fn end(self) {
        kill(self.process, Signal::SIGKILL).unwrap();
        // Who traces it hears of its end first; till then its parent would wait.
        while !matches!(waitpid(self.process, None), Ok(WaitStatus::Signaled(..) | WaitStatus::Exited(..)) | Err(_)) {}
        std::mem::forget(self);
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        set_registers(self.process, &self.registers);
        request(libc::PTRACE_DETACH, self.process, 0);
    }
}

/// One thread of a process that does not run any more, while the others do: as if it had met a lock that nobody opens.
pub struct Held(Pid);

impl Held {
    /// Holds the thread of this name. The caller is root.
    pub fn thread(process: u32, name: &str) -> Self {
        let is_it = |thread: &std::path::PathBuf| std::fs::read_to_string(thread.join("comm")).unwrap().trim() == name;
        let mut threads =
            std::fs::read_dir(format!("/proc/{process}/task")).unwrap().map(|entry| entry.unwrap().path());
        let thread = threads.find(is_it).unwrap_or_else(|| panic!("there is a thread {name}"));
        let thread = Pid::from_raw(thread.file_name().unwrap().to_str().unwrap().parse().unwrap());
        request(libc::PTRACE_ATTACH, thread, 0);
        assert!(matches!(waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap(), WaitStatus::Stopped(..)));
        Self(thread)
    }

    /// Returns when the process was killed. Until this is called it cannot go, as somebody still looks at the thread.
    pub fn until_killed(self) {
        loop {
            match waitpid(self.0, Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Signaled(..) | WaitStatus::Exited(..)) | Err(Errno::ECHILD) => return,
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn request(request: libc::c_uint, process: Pid, data: usize) {
    // SAFETY: these requests of ptrace(2) read and write no memory of ours; data is a number.
    #[allow(unsafe_code)]
    let result = unsafe { libc::ptrace(request, process.as_raw(), null_mut::<c_void>(), data) };
    Errno::result(result).expect("root traces the process");
}

fn registers(process: Pid) -> user_regs_struct {
    let mut registers = std::mem::MaybeUninit::<user_regs_struct>::zeroed();
    // SAFETY: the kernel writes a structure of this form, which is ours and lives; zeros are a valid one.
    #[allow(unsafe_code)]
    unsafe {
        let answer = libc::ptrace(libc::PTRACE_GETREGS, process.as_raw(), null_mut::<c_void>(), registers.as_mut_ptr());
        Errno::result(answer).expect("it is stopped");
        registers.assume_init()
    }
}

fn set_registers(process: Pid, registers: &user_regs_struct) {
    // SAFETY: the kernel reads a structure of this form, which lives until the call is over.
    #[allow(unsafe_code)]
    let answer = unsafe {
        libc::ptrace(libc::PTRACE_SETREGS, process.as_raw(), null_mut::<c_void>(), std::ptr::from_ref(registers))
    };
    Errno::result(answer).expect("it is stopped");
}
