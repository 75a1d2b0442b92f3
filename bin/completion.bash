# Tab completion of lgseg in interactive shells, as for ros2. The workspace's setup.bash sources it.
case $- in
    *i*)
        # The first name is that of Ubuntu 22.04.
        for _lgseg_register in register-python-argcomplete3 register-python-argcomplete; do
            if command -v "$_lgseg_register" >/dev/null; then
                eval "$("$_lgseg_register" lgseg)"
                break
            fi
        done
        unset _lgseg_register
        ;;
esac
