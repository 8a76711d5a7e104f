// A guest without a kernel: prints a line and ends the VM with exit code 42.
//
// PVH (https://xenbits.xen.org/docs/unstable/misc/pvh.html) starts it as the note says: in 32-bit
// protected mode, flat segments, paging off. That is enough to talk to ports.

#define UART_DATA 0x3f8
#define UART_LINE_STATUS 0x3fd
#define TRANSMITTER_EMPTY 0x20
#define EXIT_PORT 0x500

        .section .note.pvh, "a", @note
        .long 4, 4, 18                  // bytes of name and value; XEN_ELFNOTE_PHYS32_ENTRY
        .asciz "Xen"
        .long start

        .text
        .code32
        .globl start
start:
        movl $message, %esi
next:
        movw $UART_LINE_STATUS, %dx
1:      inb %dx, %al
        testb $TRANSMITTER_EMPTY, %al
        jz 1b
        lodsb                           // the next byte; 0 ends the message
        testb %al, %al
        jz done
        movw $UART_DATA, %dx
        outb %al, %dx
        jmp next
done:
        movw $EXIT_PORT, %dx
        movb $42, %al
        outb %al, %dx                   // the VM ends here
2:      hlt
        jmp 2b

message:
        .asciz "Hello from the bare metal\r\n"

        .section .note.GNU-stack, "", @progbits
