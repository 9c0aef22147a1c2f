# cmake -DNM=... "-DOBJECTS=a.o;b.o" -P check_weak_symbols.cmake
# Fails if an object defines a weak (W, V) or unique (u) symbol.
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND ${NM} -C --defined-only ${object}
    OUTPUT_VARIABLE symbols RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "nm could not read ${object}")
  endif()
  string(REGEX MATCHALL "[^\n]* [WVu] [^\n]*" weak "${symbols}")
  if(weak)
    list(JOIN weak "\n  " weak)
    message(FATAL_ERROR "${object} defines weak symbols, which the linker would share between "
                        "instruction sets:\n  ${weak}")
  endif()
endforeach()
