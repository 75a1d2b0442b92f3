# Tab completion of lgseg in interactive shells, as ros2 has it; sourced by the workspace's setup.bash.
case $- in
    *i*)
        # Ubuntu 22.04 calls it by the first name.
        for _lgseg_register in register-python-argcomplete3 register-python-argcomplete; do
            if command -v "$_lgseg_register" >/dev/null; then
                eval "$("$_lgseg_register" lgseg)"
                break
            fi
        done
        unset _lgseg_register
        ;;
esac
