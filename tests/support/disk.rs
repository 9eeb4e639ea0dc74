//! File systems for one test: small file systems, a device that has less room than it promises, a file system that can be frozen.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::libc::{major, minor};

use super::hanging_reads::HangingReads;
use super::{Setup, installed, root_can, skip};

/// A separate file system below a setup's directory.
pub struct Disk(PathBuf);

impl Disk {
    /// `None`: this requires root, and the test reported that it was skipped.
    pub fn mount(at: &Path, size: &str) -> Option<Self> {
        if !root_can("mount a small disk") {
            return None;
        }
        fs::create_dir_all(at).expect("a place to mount at");
        let disk = Self(at.to_owned());
        disk.run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at));
        Some(disk)
    }

    pub fn becomes_read_only(&self) {
        self.run(Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0));
    }

    /// Fills the file system to the last byte with a file that is not the relay's; deleting the returned file frees the room.
    pub fn fill(&self) -> PathBuf {
        let path = self.0.join("somebody-else");
        let mut file = fs::File::create(&path).expect("a file");
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }

    #[track_caller]
    fn run(&self, command: &mut Command) {
        let status = command.status().expect("mount and umount are everywhere");
        assert!(status.success(), "{command:?}: {status}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the relay of a failed test may still use the file system.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// A device with a file system on it.
pub struct Device {
    // In the order in which they must be unmounted.
    disk: Disk,
    image: PathBuf,
    /// The smaller disk below a device that promises more room than it has.
    below: Option<Disk>,
}

impl Device {
    /// Mounts, as a setup's spool, a device that promises more room than it has, like a thin volume. Writes beyond the real room fail when
    /// they are synced, and then the kernel remounts the file system read-only. `features` are ext4's. `None`: see [`Disk::mount`].
    pub fn mount(setup: &Setup, features: &str) -> Option<Self> {
        can_be_made()?;
        let below = Disk::mount(&setup.path("below"), "6m")?;
        let image = below.0.join("image");
        Some(Self::made(setup.dir().path(), image, Some(below), 32 << 20, features))
    }

    /// Mounts, as a setup's spool, a device that has all the room it promises. `None`: see [`Disk::mount`].
    pub fn with_room(setup: &Setup, bytes: u64) -> Option<Self> {
        Self::with_room_in(setup.dir().path(), bytes)
    }

    /// Mounts a device as the `spool` of any directory.
    pub fn with_room_in(dir: &Path, bytes: u64) -> Option<Self> {
        can_be_made()?;
        root_can("mount a disk").then(|| Self::made(dir, dir.join("image"), None, bytes, "has_journal"))
    }

    fn made(dir: &Path, image: PathBuf, below: Option<Disk>, bytes: u64, features: &str) -> Self {
        let disk = Disk(dir.join("spool"));
        fs::create_dir_all(&disk.0).expect("a place to mount at");
        fs::File::create(&image).expect("a file").set_len(bytes).expect("a length without room");
        disk.run(Command::new("mkfs.ext4").args(["-q", "-b", "4096", "-O", features]).arg(&image));
        let device = Self { disk, image, below };
        device.attach();
        device
    }

    /// Writes hang until the returned value is dropped.
    #[must_use]
    pub fn freeze(&self) -> Frozen {
        self.disk.run(Command::new("fsfreeze").arg("--freeze").arg(&self.disk.0));
        Frozen(self.disk.0.clone())
    }

    /// Reads of this process hang until the returned value is dropped. `None`: see [`HangingReads::of`].
    pub fn reads_hang(&self, process: u32) -> Option<HangingReads> {
        let found = fs::metadata(&self.disk.0).expect("a file system").dev();
        HangingReads::of(process, &self.disk.0, &format!("{}:{}", major(found), minor(found)))
    }

    /// Gives the device the room that it promised, and mounts it again. No process may use the file system.
    pub fn gets_room(&self) {
        self.disk.run(Command::new("umount").arg(&self.disk.0));
        let below = self.below();
        below.run(Command::new("mount").args(["-o", "remount,size=64m"]).arg(&below.0));
        self.attach();
    }

    /// Makes the second half of `file` unreadable. No process may use the file system.
    pub fn loses_the_end_of(&self, file: &Path) {
        let middle = fs::metadata(file).expect("a file").len() / 4096 / 2;
        let name = file.file_name().expect("a name").to_string_lossy();
        self.disk.run(Command::new("umount").arg(&self.disk.0));
        let found = Command::new("debugfs").args(["-R", &format!("bmap /{name} {middle}")]).arg(&self.image).output();
        let block = String::from_utf8(found.expect("debugfs comes with mkfs.ext4").stdout).expect("a number");
        let block: u64 = block.trim().parse().expect("a number");
        // Attach first, because attaching checks the image's length. Then cut the image off; then fill the disk, or a write could restore
        // the lost part.
        self.attach();
        fs::File::options().write(true).open(&self.image).expect("the image").set_len(block * 4096).expect("cut off");
        self.below().fill();
    }

    fn below(&self) -> &Disk {
        self.below.as_ref().expect("a thin one")
    }

    fn attach(&self) {
        let mut mount = Command::new("mount");
        self.disk.run(mount.args(["-o", "loop,errors=remount-ro"]).arg(&self.image).arg(&self.disk.0));
    }
}

fn can_be_made() -> Option<()> {
    installed("mkfs.ext4", "e2fsprogs")?;
    let has_loop = Path::new("/dev/loop-control").exists();
    if !has_loop {
        skip("loop devices", "there are no loop devices");
    }
    has_loop.then_some(())
}

/// A file system that blocks every write.
pub struct Frozen(PathBuf);

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("--unfreeze").arg(&self.0).status();
    }
}
