"""What the runtime is compared with, each in a file that somebody who knows that server can read and correct."""
